// Sample pages: search and filter the documents, and say what a cell of a token × layer map is.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const { state, make, announce } = dlbench;
  const documents = [...document.querySelectorAll("article.doc")];
  const texts = new Map(documents.map((one) => [one, one.textContent.toLowerCase()]));
  const find = document.getElementById("find");
  const count = document.getElementById("count");
  const buttons = [...document.querySelectorAll("[data-verdict]")];

  const show = () => {
    const words = state.get("q").toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = state.list("show");
    let seen = 0;
    for (const one of documents) {
      const here = (!wanted.length || wanted.includes(one.dataset.v)) && words.every((word) => texts.get(one).includes(word));
      one.hidden = !here;
      seen += here;
    }
    count.textContent = seen === documents.length ? `${seen} documents on this page` : `${seen} of ${documents.length} documents on this page`;
    if (document.activeElement !== find) find.value = state.get("q");
    for (const button of buttons) button.setAttribute("aria-pressed", String(wanted.includes(button.dataset.verdict)));
  };
  find.addEventListener("input", () => {
    state.set({ q: find.value.trim() });
    announce(count.textContent);
  });
  for (const button of buttons)
    button.addEventListener("click", () => {
      const now = new Set(state.list("show"));
      if (!now.delete(button.dataset.verdict)) now.add(button.dataset.verdict);
      state.set({ show: [...now] });
      announce(count.textContent);
    });
  document.addEventListener("dlbench:state", show);
  show();

  // ---- maps

  /** What a map's paths say: per layer, the runs of columns. */
  const runsOf = (path) =>
    [...(path?.getAttribute("d") ?? "").matchAll(/M(\d+) ([\d.]+)h(\d+)/g)].map(([, x, y, n]) => ({ x: +x, y: Math.floor(+y), n: +n }));
  const tip = make("div", { class: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  const known = new WeakMap();
  const facts = (map) => {
    if (!known.has(map)) {
      const pieces = map.dataset.p ? JSON.parse(map.dataset.p) : [];
      const [, whole, half] = map.querySelectorAll("path");
      known.set(map, { pieces, whole: runsOf(whole), half: runsOf(half) });
    }
    return known.get(map);
  };
  const say = (map, column) => {
    const { pieces, whole, half } = facts(map);
    const layers = map.viewBox.baseVal.height;
    const at = (runs) => runs.filter(({ x, n }) => x <= column && column < x + n).map(({ y }) => layers - 1 - y).sort((a, b) => a - b);
    const name = pieces[column] === undefined ? `token ${column + 1}` : `token ${column + 1} “${pieces[column].trim() || "␣"}”`;
    if (column === 0) return [name, "made by the prompt’s pass, at full depth"];
    const ran = at(whole);
    const part = at(half);
    return [name, `ran ${ran.length + part.length / 2} of ${layers} layers${ran.length ? `: ${ran.join(" ")}` : ""}${part.length ? `; half of ${part.join(" ")}` : ""}`];
  };
  document.addEventListener("pointermove", (event) => {
    const map = event.target.closest?.("svg.map");
    tip.hidden = !map;
    if (!map) return;
    const box = map.getBoundingClientRect();
    const columns = map.viewBox.baseVal.width;
    const column = Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
    const [name, text] = say(map, column);
    tip.replaceChildren(make("b", {}, name), text);
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - width - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - height - 12)}px`;
  });
});
