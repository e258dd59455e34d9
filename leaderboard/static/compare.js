// Compare every row with a chosen one, from tests that were made when the site was built, and ticked rows with each
// other, in the chart and document by document.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const { state, make, announce } = dlbench;
  const plot = document.getElementById("plot");
  if (!dlbench.table || !plot) return;
  const slug = plot.dataset.view;
  const { table, rows } = dlbench.table;
  const byId = new Map(rows.map((row) => [row.id, row]));
  const nameOf = (id) => {
    const row = byId.get(id);
    return row.dataset.b ? `${row.dataset.s} at ${Number((100 * row.dataset.b).toPrecision(4))} %` : row.dataset.s;
  };

  // ---- the controls: a first column that only this script can serve

  let ready = false;
  /** Add it when it is needed: thousands of lines take a while. */
  const prepare = () => {
    if (ready) return;
    ready = true;
    const heading = make("th", { scope: "col", rowspan: 2, class: "do" }, make("span", { class: "hide" }, "Compare and tick"));
    table.tHead.rows[0].prepend(heading);
    for (const head of table.querySelectorAll("tr.head th")) head.colSpan += 1;
    for (const row of rows) {
      const name = nameOf(row.id);
      const compare = make("button", { type: "button", class: "plain", "aria-pressed": "false", title: `Test every row against ${name}`, "aria-label": `Compare all with ${name}`, "data-compare": row.id }, "⇄");
      const tick = make("input", { type: "checkbox", "aria-label": `Overlay ${name}`, title: "Lay over the chart and the documents", "data-tick": row.id });
      row.prepend(make("td", { class: "do" }, compare, tick));
    }
  };
  const fold = table.closest("details");
  fold?.addEventListener("toggle", prepare);
  if (!fold || fold.open) prepare();
  table.addEventListener("click", (event) => {
    const compare = event.target.closest("[data-compare]")?.dataset.compare;
    if (compare) return state.set({ cmp: state.get("cmp") === compare ? "" : compare });
    return undefined;
  });
  table.addEventListener("change", (event) => {
    const id = event.target.dataset.tick;
    if (!id) return;
    const now = new Set(state.list("tick"));
    if (event.target.checked) now.add(id);
    else now.delete(id);
    state.set({ tick: [...now] });
  });

  // ---- every row against one

  const pairsOf = async (id) => {
    await dlbench.load(`data/${slug}.pairs.js`);
    const index = dlbench.data[`pairs:${slug}`];
    const at = index.ids.indexOf(id);
    if (at < 0) return null;
    const block = Math.floor(at / index.block);
    if (index.blocks > 1) await dlbench.load(`data/${slug}.pairs-${block}.js`);
    const { d, lo, hi, p, w, l, v } = (index.blocks > 1 ? dlbench.data[`pairs:${slug}:${block}`] : index.data)[at % index.block];
    // A file holds "chosen minus other"; people read "this row minus the chosen one".
    return new Map(
      index.ids.map((other, k) => [other, { d: -d[k] / 100, lo: -hi[k] / 100, hi: -lo[k] / 100, p: p[k] / 1e4, won: l[k], lost: w[k], verdict: -v[k] }]),
    );
  };

  const signed = (value) => {
    const text = Math.abs(value).toFixed(1);
    return `${text === "0.0" ? "" : value > 0 ? "+" : "−"}${text}`;
  };
  const columnHead = make("th", { scope: "col", rowspan: 2, class: "l versus" });
  let versus = null;
  const uncompare = () => {
    columnHead.remove();
    for (const row of rows) row.querySelector("td.versus")?.remove();
    for (const head of table.querySelectorAll("tr.head th")) head.colSpan = Number(head.dataset.span ?? head.colSpan);
    for (const row of rows) row.classList.remove("base", "won", "lost");
    versus = null;
  };

  const compareWith = async (id) => {
    const pairs = await pairsOf(id).catch(() => null);
    if (state.get("cmp") !== id) return;
    uncompare();
    byId.get(id).classList.add("base");
    if (!pairs) {
      versus = { id, none: true };
      return;
    }
    const tally = { won: 0, lost: 0, open: 0 };
    columnHead.replaceChildren("Against the chosen row,", make("br"), "points of quality kept [95 %]");
    table.tHead.querySelector("[data-sort='name']").after(columnHead);
    for (const head of table.querySelectorAll("tr.head th")) {
      head.dataset.span ??= head.colSpan;
      head.colSpan = Number(head.dataset.span) + 1;
    }
    for (const row of rows) {
      const pair = pairs.get(row.id);
      const cell = make("td", { class: "versus" });
      if (row.id === id) cell.append("chosen");
      else if (pair) {
        const verdict = { 1: "won", "-1": "lost", 0: "open" }[pair.verdict];
        tally[verdict] += 1;
        if (verdict !== "open") row.classList.add(verdict);
        const word = { won: "better", lost: "worse", open: "not told apart" }[verdict];
        cell.append(
          make("b", { "aria-hidden": "true" }, { won: "▲ ", lost: "▼ ", open: "≈ " }[verdict]),
          make("span", { class: "hide" }, `${word}: `),
          signed(pair.d),
          make("span", { class: "ci" }, ` [${signed(pair.lo)}, ${signed(pair.hi)}]`),
        );
        cell.title = `${word}; p ${pair.p < 1e-3 ? "< 0.001" : pair.p.toFixed(3)}, corrected; better on ${pair.won}, worse on ${pair.lost} documents`;
      } else cell.append("–");
      row.querySelector("th").after(cell);
    }
    versus = { id, tally };
    announce(`Every row against ${nameOf(id)}: ${tally.won} better, ${tally.lost} worse, ${tally.open} not told apart`);
  };

  // ---- the strip below: what is chosen, and the documents

  const strip = document.getElementById("strip");
  const chips = (ids) =>
    ids.map((id) => make("button", { type: "button", class: "tool", title: "Take it off", onclick: () => state.set({ tick: state.list("tick").filter((one) => one !== id) }) }, `${nameOf(id)} ×`));

  const matrix = async (ids, base) => {
    await dlbench.load(`data/${slug}.docs.js`);
    const { documents, anchors, ranks, pages } = dlbench.data[`docs:${slug}`];
    if (!ranks[base]) return null;
    const known = ids.filter((id) => ranks[id] && id !== base);
    if (!known.length) return null;
    const sign = (id, k) => Math.sign(ranks[id][k] - ranks[base][k]);
    const balance = documents.map((_, k) => known.reduce((sum, id) => sum + sign(id, k), 0));
    const order = documents.map((_, k) => k).sort((a, b) => balance[b] - balance[a] || a - b);
    const style = getComputedStyle(document.documentElement);
    const ink = { 1: style.getPropertyValue("--better"), "-1": style.getPropertyValue("--worse"), 0: style.getPropertyValue("--hair") };
    const swatch = make("span");
    document.body.append(swatch);
    for (const key of Object.keys(ink)) {
      swatch.style.color = ink[key];
      ink[key] = getComputedStyle(swatch).color; // a canvas knows no light-dark()
    }
    swatch.remove();
    const cell = Math.max(2, Math.min(9, Math.floor(700 / order.length)));
    const body = known.map((id) => {
      const canvas = make("canvas", { width: cell * order.length, height: 16, role: "img" });
      const pen = canvas.getContext("2d");
      const tally = { 1: 0, "-1": 0, 0: 0 };
      order.forEach((k, x) => {
        const one = sign(id, k);
        tally[one] += 1;
        pen.fillStyle = ink[one];
        pen.fillRect(cell * x, one < 0 ? 8 : one > 0 ? 0 : 7, Math.max(1, cell - 1), one ? 8 : 2);
      });
      canvas.setAttribute("aria-label", `${nameOf(id)}: better on ${tally[1]}, worse on ${tally[-1]}, equal on ${tally[0]} documents`);
      const at = (event) => order[Math.floor(event.offsetX / (canvas.clientWidth / order.length))];
      canvas.addEventListener("pointermove", (event) => (canvas.title = documents[at(event)] ?? ""));
      canvas.addEventListener("click", (event) => {
        const page = pages[id];
        const k = at(event);
        const shard = page?.shard?.[k] ?? 0;
        if (page && k !== undefined && shard >= 0) location.href = `${page.file}${shard ? `-${shard + 1}` : ""}.html#${anchors[k]}`;
      });
      return make("tr", {}, make("th", { scope: "row" }, nameOf(id)), make("td", {}, `${tally[1]} better`), make("td", {}, `${tally[-1]} worse`), make("td", {}, `${tally[0]} equal`), make("td", {}, canvas));
    });
    return make(
      "div",
      { class: "matrix", tabindex: "0", role: "region", "aria-label": "Documents" },
      make("p", { class: "soft" }, make("span", { class: "key" }, make("i", { class: "w" }), "better"), make("span", { class: "key" }, make("i", { class: "x" }), "worse"), make("span", { class: "key" }, make("i", { class: "t" }), `equal to ${nameOf(base)}; one column per document, the same order in every line`)),
      make("table", {}, make("caption", {}, `Documents won and lost against ${nameOf(base)}`), make("tbody", {}, ...body)),
    );
  };

  const showStrip = async () => {
    const ids = state.list("tick").filter((id) => byId.has(id));
    const chosen = byId.has(state.get("cmp")) ? state.get("cmp") : "";
    if (!ids.length && !chosen) {
      strip.hidden = true;
      return;
    }
    const parts = [];
    if (chosen) {
      const said = make("span", {}, "Every row against ", make("b", {}, nameOf(chosen)), ": ");
      if (versus?.id === chosen && versus.tally) said.append(`${versus.tally.won} better, ${versus.tally.lost} worse, ${versus.tally.open} not told apart.`);
      else if (versus?.id === chosen) said.append("its documents were not published, so there is nothing to test.");
      said.append(make("span", { class: "soft" }, " Paired by document, permutation tests, 5 % false discoveries."));
      parts.push(make("div", { class: "row" }, said, make("button", { type: "button", class: "tool", onclick: () => state.set({ cmp: "" }) }, "Stop comparing")));
    }
    if (ids.length) {
      parts.push(make("div", { class: "row" }, make("span", {}, "Ticked:"), ...chips(ids), make("button", { type: "button", class: "tool", onclick: () => state.set({ tick: "" }) }, "Clear")));
      const base = chosen || rows.find((row) => row.dataset.k === "full")?.id;
      const drawn = base ? await matrix(ids, base).catch(() => null) : null;
      if (drawn) parts.push(drawn);
    }
    strip.replaceChildren(...parts);
    strip.hidden = false;
  };

  let last = "";
  const show = async () => {
    const chosen = byId.has(state.get("cmp")) ? state.get("cmp") : "";
    const ids = state.list("tick").filter((id) => byId.has(id));
    const now = [chosen, ...ids].join(" ");
    if (now === last) return; // typing in the search changes nothing here
    last = now;
    if (chosen || ids.length) prepare();
    for (const row of ready ? rows : []) {
      row.querySelector("[data-compare]").setAttribute("aria-pressed", String(row.id === chosen));
      row.querySelector("[data-tick]").checked = ids.includes(row.id);
    }
    document.dispatchEvent(new CustomEvent("dlbench:ticked", { detail: [...new Set(ids.map((id) => byId.get(id).dataset.s))] }));
    if (!chosen) uncompare();
    else if (versus?.id !== chosen) await compareWith(chosen);
    await showStrip();
  };
  document.addEventListener("dlbench:state", show);
  document.addEventListener("dlbench:theme", showStrip);
  show();
});
