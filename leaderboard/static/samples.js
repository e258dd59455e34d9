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

  const tip = make("div", { class: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  const known = new WeakMap();
  /** What a map's pixels say: [column, layer] → 0 passed by, 0.5 half of the layer, 1 all of it. */
  const facts = (map) => {
    if (!known.has(map)) {
      const { naturalWidth: columns, naturalHeight: layers } = map;
      const pen = make("canvas", { width: columns, height: layers }).getContext("2d");
      pen.drawImage(map, 0, 0);
      const { data } = pen.getImageData(0, 0, columns, layers);
      const at = (column, layer) => {
        const alpha = data[4 * ((layers - 1 - layer) * columns + column) + 3];
        return alpha === 0 ? 0 : alpha < 150 ? 0.5 : 1;
      };
      known.set(map, { columns, layers, at, pieces: map.dataset.p ? JSON.parse(map.dataset.p) : [] });
    }
    return known.get(map);
  };
  const say = (map, share) => {
    const { columns, layers, at, pieces } = facts(map);
    const column = Math.min(columns - 1, Math.max(0, Math.floor(share * columns)));
    const name = pieces[column] === undefined ? `token ${column + 1}` : `token ${column + 1} “${pieces[column].trim() || "␣"}”`;
    if (column === 0) return [name, "made by the prompt’s pass"];
    const ran = Array.from({ length: layers }, (_, layer) => at(column, layer));
    const which = (worth) => ran.flatMap((one, layer) => (one === worth ? [layer] : [])).join(" ");
    const total = ran.reduce((sum, one) => sum + one, 0);
    return [name, `ran ${total} of ${layers} layers${which(1) ? `: ${which(1)}` : ""}${which(0.5) ? `; half of ${which(0.5)}` : ""}`];
  };
  document.addEventListener("pointermove", (event) => {
    const map = event.target.closest?.("img.map");
    tip.hidden = !map;
    if (!map) return;
    const box = map.getBoundingClientRect();
    const [name, text] = say(map, (event.clientX - box.left) / box.width);
    tip.replaceChildren(make("b", {}, name), text);
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - width - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - height - 12)}px`;
  });
});
