// What stands above the fold: the cost axis, which changes headline, cards and ranking together with the chart; the
// search; the rows of the ranking, which open; the legend, which switches series on and off; folded sections.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const { state, make, announce } = dlbench;
  const plot = document.getElementById("plot");
  const slug = plot?.dataset.view;

  // ---- folded sections

  /** Open all folded sections that an element stands in. */
  dlbench.unfold = (element) => {
    for (let one = element?.closest("details"); one; one = one.parentElement.closest("details")) one.open = true;
  };
  const unfoldAnchor = () => {
    const hash = location.hash.slice(1);
    const there = hash && !hash.includes("=") ? document.getElementById(hash) : null;
    if (!there) return;
    dlbench.unfold(there);
    there.scrollIntoView();
  };
  addEventListener("hashchange", unfoldAnchor);
  unfoldAnchor();
  for (const menu of document.querySelectorAll("details.menu")) {
    menu.addEventListener("focusout", (event) => menu.contains(event.relatedTarget) || (menu.open = false));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
    // Another task is shown on the cost that is asked for now.
    menu.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (link) link.hash = state.get("axis") ? `axis=${state.get("axis")}` : "";
    });
  }

  for (const link of document.querySelectorAll(".findings a"))
    link.addEventListener("click", () => setTimeout(() => document.getElementById("best")?.scrollIntoView(), 0));

  // ---- search, in the ranking and in the table of all rows

  const find = document.getElementById("find");
  find?.addEventListener("input", () => {
    state.set({ q: find.value.trim() });
    announce(document.getElementById("count")?.textContent ?? "");
  });
  find?.addEventListener("keydown", (event) => {
    if (event.key === "Escape") state.set({ q: "" });
  });
  let searched = "";
  const search = (again = false) => {
    const q = state.get("q").toLowerCase();
    if (q === searched && !again) return;
    searched = q;
    if (find && find.value.trim().toLowerCase() !== q) find.value = state.get("q");
    const words = q.split(/\s+/).filter(Boolean);
    for (const row of document.querySelectorAll("#ranking tbody tr[data-s]")) {
      const text = words.length ? `${row.textContent} ${row.dataset.t}`.toLowerCase() : "";
      row.hidden = !words.every((word) => text.includes(word));
      if (row.nextElementSibling?.classList.contains("more")) row.nextElementSibling.hidden ||= row.hidden;
    }
  };

  // ---- copies

  const copied = async (button, text) => {
    const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    const before = button.textContent;
    button.textContent = done ? "Copied" : "Not allowed here";
    announce(button.textContent);
    setTimeout(() => (button.textContent = before), 1500);
  };
  document.getElementById("copy")?.addEventListener("click", (event) => copied(event.currentTarget, location.href));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copied(button, button.closest("div").querySelector("pre").textContent);
    if (event.target.closest("[data-save='csv']")) saveTable();
  });
  /** The ranking as it stands, as a file. */
  const saveTable = () => {
    const cell = (one) => one.innerText.replace(/\s+/g, " ").trim();
    const quoted = (text) => `"${(/^[=+\-@]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
    const rows = [...document.querySelectorAll("#ranking tr:not(.more)")].filter((row) => !row.hidden);
    const text = rows.map((row) => [...row.cells].map((one) => quoted(cell(one))).join(",")).join("\n");
    make("a", { href: URL.createObjectURL(new Blob([text, "\n"], { type: "text/csv" })), download: `${slug}-ranking.csv` }).click();
  };

  if (!slug) return;

  // ---- the axis

  const headline = document.getElementById("chart-h");
  const answers = document.getElementById("answers");
  const box = document.getElementById("ranking-box");
  const radios = [...document.querySelectorAll("#axis input")];
  const first = radios[0]?.value ?? "";
  let shown = first;
  const front = async () => {
    const wanted = radios.some((one) => one.value === state.get("axis")) ? state.get("axis") : first;
    for (const one of radios) one.checked = one.value === wanted;
    if (wanted === shown) return;
    shown = wanted;
    await dlbench.load(`data/${slug}.front.js`);
    if (wanted !== shown) return;
    const parts = dlbench.data[`front:${slug}`][wanted];
    headline.textContent = parts.headline;
    // These were written with the page, by the same templates: every text in them is escaped.
    if (answers) answers.innerHTML = parts.cards;
    if (box) box.innerHTML = parts.ranking;
    openable();
    search(true);
    box.dataset.axis = wanted;
    announce(parts.headline);
  };
  for (const one of radios) one.addEventListener("change", () => state.set({ axis: one.value === first ? "" : one.value, box: "" }));

  // ---- rows of the ranking open

  const openable = () => {
    for (const row of box?.querySelectorAll("tbody tr[data-s]") ?? []) {
      const button = make("button", { type: "button", class: "open", "aria-expanded": "false", "aria-label": `All settings of ${row.dataset.s}` }, "▸");
      row.cells[1].prepend(button);
    }
  };
  const toggle = async (row) => {
    const button = row.querySelector("button.open");
    const there = row.nextElementSibling?.classList.contains("more") ? row.nextElementSibling : null;
    const open = there ? there.hidden : true;
    button.setAttribute("aria-expanded", String(open));
    if (there) {
      there.hidden = !open;
      return;
    }
    const cell = make("td", { colspan: row.cells.length }, "…");
    row.after(make("tr", { class: "more" }, cell));
    await dlbench.load(`data/${slug}.details.js`);
    cell.innerHTML = dlbench.data[`details:${slug}`][row.dataset.s] ?? "";
  };
  box?.addEventListener("click", (event) => {
    const row = event.target.closest("tbody tr[data-s]");
    if (row && !event.target.closest("a") && getSelection().isCollapsed) toggle(row);
  });
  const light = (series) => document.dispatchEvent(new CustomEvent("dlbench:hot", { detail: series ? [series] : [] }));
  box?.addEventListener("pointerover", (event) => light(event.target.closest("tr[data-s]")?.dataset.s));
  box?.addEventListener("pointerleave", () => light());

  // ---- the legend: one stop for the keyboard, arrows within it

  const legend = document.getElementById("legend");
  const items = [...(legend?.querySelectorAll("li") ?? [])];
  items.forEach((item, place) => {
    const what = item.querySelector(".what");
    const button = make("button", { type: "button", "aria-pressed": "true", tabindex: place ? "-1" : "0", title: "Show or hide it in the chart" });
    button.append(...what.childNodes);
    what.replaceChildren(button);
    button.addEventListener("click", () => {
      const off = new Set(state.list("off"));
      if (!off.delete(item.dataset.id)) off.add(item.dataset.id);
      state.set({ off: [...off] });
    });
    button.addEventListener("focus", () => items.forEach((one) => (one.querySelector("button").tabIndex = one === item ? 0 : -1)));
  });
  legend?.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const at = items.findIndex((item) => item.contains(document.activeElement));
    if (!step || at < 0) return;
    event.preventDefault();
    const next = items[(at + step + items.length) % items.length];
    dlbench.unfold(next);
    next.querySelector("button").focus();
  });
  let switched = "";
  const legendShow = () => {
    if (state.get("off") === switched) return;
    switched = state.get("off");
    const off = new Set(state.list("off"));
    for (const item of items) item.querySelector("button").setAttribute("aria-pressed", String(!off.has(item.dataset.id)));
  };

  const show = () => {
    front().catch((error) => console.error(error));
    search();
    legendShow();
  };
  document.addEventListener("dlbench:state", show);
  openable();
  show();
});
