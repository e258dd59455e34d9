// What all pages share: the colour theme, and the state of a page, which lives in the address after the #.
"use strict";
document.documentElement.classList.add("js");

const dlbench = (window.dlbench = {
  /** Data of the files under data/, by name. */
  data: {},
  /** Call a function that may fail where storage or history is blocked; undefined where it does. */
  quietly(what) {
    try {
      return what();
    } catch {
      return undefined;
    }
  },
});

// ---- theme: as the system has it, until somebody chooses

dlbench.dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

{
  const root = document.documentElement;
  const stored = dlbench.quietly(() => localStorage.getItem("dlbench-theme"));
  if (stored === "light" || stored === "dark") root.dataset.theme = stored;
  const changed = () => document.dispatchEvent(new Event("dlbench:theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme")?.addEventListener("click", () => {
      root.dataset.theme = dlbench.dark() ? "light" : "dark";
      dlbench.quietly(() => localStorage.setItem("dlbench-theme", root.dataset.theme));
      changed();
    });
  });
}

// ---- state: #axis=decode&sort=kept.desc&budget=0.5; an address with a bare anchor has none

dlbench.state = {
  read() {
    const hash = location.hash.slice(1);
    return new URLSearchParams(hash.includes("=") ? hash : "");
  },
  get(name) {
    return this.read().get(name) ?? "";
  },
  list(name) {
    const text = this.get(name);
    return text ? text.split(",") : [];
  },
  /** Change some of it; empty values are left out. Fires `dlbench:state`. */
  set(changes) {
    const now = this.read();
    for (const [name, value] of Object.entries(changes)) {
      const text = Array.isArray(value) ? value.join(",") : value;
      if (text) now.set(name, text);
      else now.delete(name);
    }
    now.sort();
    const hash = now.toString().replaceAll("%2C", ",");
    const there = location.pathname + location.search + (hash ? `#${hash}` : "");
    if (dlbench.quietly(() => history.replaceState(null, "", there) ?? true) === undefined) location.hash = hash;
    document.dispatchEvent(new Event("dlbench:state"));
  },
};
// A link to a place of the page goes there, and leaves the state in the address.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  const place = link && document.getElementById(link.hash.slice(1));
  if (!place || !location.hash.includes("=") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  dlbench.unfold?.(place);
  if (!place.hasAttribute("tabindex")) place.tabIndex = -1;
  place.focus({ preventScroll: true });
  place.scrollIntoView();
});
addEventListener("hashchange", () => document.dispatchEvent(new Event("dlbench:state")));

// ---- data on demand: a page opened from a folder may not fetch files, but may load its own scripts

{
  const asked = new Map();
  /** Load one of the site's scripts, once. */
  dlbench.load = (path) => {
    if (!asked.has(path)) {
      asked.set(
        path,
        new Promise((done, failed) => {
          const script = document.createElement("script");
          script.src = path;
          script.addEventListener("load", () => done());
          script.addEventListener("error", () => failed(new Error(`${path} did not load`)));
          document.head.append(script);
        }),
      );
    }
    return asked.get(path);
  };
}

/** Make an element: tag, attributes, children (strings become text, so nothing in a record can become markup). */
dlbench.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/** Tell people who do not see the page what just changed. */
dlbench.announce = (text) => {
  const status = document.getElementById("status");
  if (status) status.textContent = text;
};
