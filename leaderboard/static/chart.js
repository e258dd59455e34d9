// The interactive chart: Vega draws the specification of the page's picture again, with the cost that is asked for on
// the axis, hints, a brush, and links to the rows. All of it comes from the site's own folder.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const { state, make } = dlbench;
  const plot = document.getElementById("plot");
  if (!plot) return;
  const slug = plot.dataset.view;
  const fine = matchMedia("(pointer: fine)").matches;
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  let view = null; // Vega's, once it is there
  let points = new Map();
  let ticked = [];

  const figures = () => dlbench.data[`chart:${slug}`];
  const axisNow = () => {
    const { axes } = figures();
    return axes.find((axis) => axis.key === state.get("axis")) ?? axes[0];
  };
  const cost = (axis, x) => `${percent(x)} of ${axis.of}`;
  /** What a point keeps, with its interval where it has one. */
  const kept = ({ y, lo, hi }) => {
    const { metric } = figures(); // where full depth scores nothing, so that there is no share of it
    if (metric) return `${metric} ${y.toPrecision(4)}`;
    return `keeps ${percent(y)}` + (lo < hi ? ` [${(100 * lo).toFixed(1)}, ${(100 * hi).toFixed(1)}]` : "");
  };

  /** Series that the legend has switched off. */
  const hidden = () => {
    const { base } = figures();
    const off = new Set(state.list("off"));
    return new Set(base.filter((point) => off.has(point.id)).map((point) => point.s));
  };

  /** The data sets on one axis. */
  const datasets = (axis) => {
    const { base, charts } = figures();
    const { x, front, labels, frame, mark, better, budgets } = charts[axis.key];
    const off = hidden();
    const drawn = base
      .filter((point) => point.id in x && !off.has(point.s))
      .map((point) => ({ ...point, x: x[point.id], text: `${point.s}: ${kept(point)} at ${cost(axis, x[point.id])}` }));
    points = new Map(drawn.map((point) => [point.id, point]));
    const seen = (one) => !off.has(one.s);
    return { points: drawn, front, labels: labels.filter(seen), frame, mark, better, budgets: budgets.filter(seen), full: drawn.filter((point) => point.k === "full").slice(0, 1) };
  };

  /** The specification for the room, the axis and the theme at hand. */
  const specify = () => {
    const { colours } = figures();
    const axis = axisNow();
    const spec = structuredClone(figures().spec);
    const wide = plot.clientWidth;
    const narrow = wide < 560;
    spec.datasets = datasets(axis);
    if (narrow) spec.datasets.labels = spec.datasets.budgets = [];
    spec.padding.right = narrow ? 10 : spec.padding.right;
    spec.width = wide - spec.padding.right - 52;
    spec.height = Math.round(Math.min(spec.height, Math.max(280, 0.62 * wide)));
    const [low, high] = spec.datasets.frame;
    for (const layer of spec.layer) {
      const { x, y } = layer.encoding;
      if (x) {
        x.scale.domain = [low.x, high.x];
        Object.assign(x.axis, { title: axis.title, format: "%", tickCount: narrow ? 4 : 8 });
      }
      if (y?.scale) y.scale.domain = [low.y, high.y];
      if (layer.name === "points" && fine) {
        const box = state.list("box").map(Number);
        layer.params = [
          {
            name: "brush",
            select: { type: "interval", mark: { fill: "#2158b9", fillOpacity: 0.08, stroke: "#2158b9", strokeOpacity: 0.5 } },
            ...(box.length === 4 ? { value: { x: [box[0], box[1]], y: [box[2], box[3]] } } : {}),
          },
        ];
      }
    }
    if (!dlbench.dark()) return spec;
    const twins = new Map(colours);
    return JSON.parse(JSON.stringify(spec).replace(/"(#[0-9a-f]{6})"/g, (all, one) => `"${twins.get(one) ?? one}"`));
  };

  // ---- hints

  const tip = make("div", { class: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  const hint = (event, point) => {
    tip.hidden = !point;
    if (!point) return;
    const axis = axisNow();
    const budget = point.n <= 1 ? ` at budget ${percent(point.n).replace(".0", "")}` : "";
    tip.replaceChildren(make("b", {}, point.s + budget), kept(point), make("br"), cost(axis, point.x));
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - height - 12)}px`;
  };

  // ---- drawing

  let drawing = Promise.resolve();
  let drawn = "";
  const wantedFor = (box) => `${axisNow().key} ${state.get("off")} ${plot.clientWidth} ${dlbench.dark()} ${box}`;
  const draw = () => {
    const wanted = wantedFor(state.get("box"));
    if (wanted === drawn) return drawing;
    drawn = wanted;
    drawing = drawing.then(async () => {
      const place = make("div");
      const made = await vegaEmbed(place, specify(), {
        ast: true, // expressions are interpreted: the page allows no eval
        renderer: "svg",
        actions: false,
        defaultStyle: false,
        tooltip: () => {},
      });
      view?.finalize();
      view = made.view;
      plot.querySelector(".live-chart")?.remove();
      place.className = "live-chart";
      // The table below has the same figures; a hundred unlabelled shapes would not help with a screen reader.
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", plot.querySelector("svg.chart title").textContent);
      place.querySelector("svg").setAttribute("aria-hidden", "true");
      plot.append(place);
      plot.classList.add("live");
      view.addEventListener("pointermove", (event, item) => {
        const point = item?.datum?.id ? item.datum : null;
        hint(event, point);
        document.dispatchEvent(new CustomEvent("dlbench:hot", { detail: point ? [point.s] : [] }));
      });
      view.addEventListener("pointerout", () => hint(null, null));
      view.addEventListener("click", (event, item) => item?.datum?.id && dlbench.point?.(item.datum.id));
      if (fine) view.addSignalListener("brush", brushed);
      heat(ticked);
      plot.dataset.axis = axisNow().key;
    });
    return drawing;
  };

  let waiting = 0;
  const brushed = (name, box) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const round = (value) => Number(value.toPrecision(5));
      const ends = box.x && box.y ? [...box.x, ...box.y].map(round) : [];
      const [x0, x1, y0, y1] = ends;
      const sorted = ends.length ? [Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)] : [];
      if (sorted.join(",") === state.get("box")) return;
      drawn = wantedFor(sorted.join(",")); // it is on the screen already
      state.set({ box: sorted });
    }, 60);
  };

  const heat = (series) => view?.signal("hot", series).runAsync();
  document.addEventListener("dlbench:hot", (event) => heat(event.detail.length ? event.detail : ticked));
  document.addEventListener("dlbench:ticked", (event) => heat((ticked = event.detail)));

  // ---- start: the picture on the page is replaced as soon as everything has loaded

  const start = async () => {
    await dlbench.load(`data/${slug}.chart.js`);
    if (dlbench.table) {
      dlbench.table.inside = (box) => {
        const [x0, x1, y0, y1] = box.split(",").map(Number);
        datasets(axisNow());
        return new Set([...points.values()].filter((p) => p.x >= x0 && p.x <= x1 && p.y >= y0 && p.y <= y1).map((p) => p.id));
      };
      dlbench.table.show();
    }
    await dlbench.load("assets/vega.js");
    await draw();
    document.addEventListener("dlbench:state", draw);
    document.addEventListener("dlbench:theme", draw);
    let resizing = 0;
    addEventListener("resize", () => {
      clearTimeout(resizing);
      resizing = setTimeout(draw, 150);
    });
  };
  // The page is usable before this; let it be drawn first.
  setTimeout(() => start().catch((error) => console.error(error)), 0);

  // ---- files of what is shown

  document.addEventListener("click", async (event) => {
    const kind = event.target.closest("[data-save]")?.dataset.save;
    if (!view || (kind !== "svg" && kind !== "png")) return;
    const background = getComputedStyle(document.body).backgroundColor;
    view.background(background);
    await view.runAsync();
    const address = kind === "png" ? await view.toImageURL("png", 2) : URL.createObjectURL(new Blob([await view.toSVG()], { type: "image/svg+xml" }));
    view.background("transparent").run();
    make("a", { href: address, download: `${slug}-${axisNow().key}.${kind}` }).click();
  });
});
