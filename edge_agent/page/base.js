// What every part of the page stands on: elements, words, what the phone remembers, sheets. Loaded first.
"use strict";
window.waywarden = (() => {
  // Optional parts of the page (camera, signature pad, …) enter themselves here. The page works when any is missing.
  const parts = {};

  // What the phone remembers. A browser may forbid it (private windows): then nothing is remembered.
  const remembered = name => { try { return localStorage.getItem("waywarden." + name); } catch (forbidden) { return null; } };
  const remember = (name, text) => {
    try {
      if (text === null) localStorage.removeItem("waywarden." + name);
      else localStorage.setItem("waywarden." + name, text);
      return true;
    } catch (forbidden) { return false; }
  };

  // Words, by key and language; {name} is filled in.
  const tables = window.WAYWARDEN_WORDS || { en: {} };
  const spoken = () => (navigator.languages || [navigator.language || "en"]).map(tag => tag.slice(0, 2).toLowerCase());
  let language = [remembered("language"), ...spoken(), "en"].find(tag => tag in tables) || "en";
  const t = (key, filled = {}) =>
    ((tables[language] || {})[key] || (tables.en || {})[key] || key.replace(/_/g, " "))
      .replace(/\{(\w+)\}/g, (whole, name) => name in filled ? filled[name] : whole);
  const many = (key, n, filled = {}) => t(key + (n === 1 ? "_one" : "_other"), { n, ...filled });
  const speak = tag => { language = tag; remember("language", tag); document.documentElement.lang = tag; document.title = t("title"); };

  // Day or night by hand; without a choice the phone's own.
  const theme = () => remembered("theme") || "auto";
  const paint = name => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    remember("theme", name === "auto" ? null : name);
  };

  function el(tag, attributes = {}, ...inside) {
    const made = document.createElement(tag);
    for (const [name, told] of Object.entries(attributes)) {
      if (told === null || told === undefined || told === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), told);
      else made.setAttribute(name, told === true ? "" : told);
    }
    made.append(...inside.flat().filter(x => x !== null && x !== undefined && x !== false && x !== ""));
    return made;
  }
  const button = (words, onclick, more = {}) => el("button", { type: "button", onclick, ...more }, words);

  // Optional parts must not take the page down with them.
  function attempt(act, otherwise) {
    try { return act(); } catch (broken) { console.warn(broken); return otherwise; }
  }
  const feel = kind => attempt(() => parts.feel && parts.feel(kind));

  let fading = 0;
  function word(words, kind = "") {
    const place = document.getElementById("word");
    place.textContent = words;
    place.className = "on " + kind;
    clearTimeout(fading);
    // As long as it takes to read: 15 letters a second at a glance, and twice that for what went wrong.
    fading = setTimeout(() => { place.className = ""; }, Math.max(2000, 70 * words.length) * (kind === "bad" ? 2 : 1));
  }
  // What the agent says in English, in the driver's language where there are words for it.
  const problemWords = problem => {
    const key = "problem_" + String(problem.title || "").replace(/ /g, "_");
    return (tables.en || {})[key] ? t(key) : problem.detail || problem.title || t("not_taken");
  };
  const complain = problem => { feel("wrong"); word(problemWords(problem), "bad"); };
  const announce = words => { document.getElementById("spoken").textContent = words; };

  // One sheet at a time. `build(put, close)` puts body and foot; the promise holds what `close` was given, or undefined
  // when the sheet was put away.
  let putAway = null;
  function sheet(title, build) {
    if (putAway) putAway(undefined);
    const dialog = document.getElementById("sheet");
    return new Promise(done => {
      const heading = el("h2", { id: "sheet-title", tabindex: "-1" }, title);
      const body = el("div", { class: "sheet-body" });
      const foot = el("div", { class: "sheet-foot" });
      const before = document.activeElement;
      let isOpen = true;
      const close = answer => {
        if (!isOpen) return;
        isOpen = false;
        putAway = null;
        dialog.onclose = dialog.onclick = dialog.oncancel = null;
        if (dialog.classList.contains("plain")) dialog.removeAttribute("open"); else dialog.close();
        dialog.replaceChildren();
        done(answer);
        if (before && before.isConnected) attempt(() => before.focus({ preventScroll: true }));
      };
      putAway = close;
      dialog.replaceChildren(
        el("div", { class: "sheet-head" }, heading, button("✕", () => close(undefined), { "aria-label": t("close") })), body);
      build({ body: (...made) => body.append(...made.flat().filter(Boolean)),
        foot: (...made) => { foot.append(...made.filter(Boolean)); foot.classList.toggle("two", foot.children.length === 2);
          dialog.append(foot); } }, close);
      // The event of the sheet before comes when this one is open already.
      dialog.onclose = () => { if (!dialog.open) close(undefined); };
      dialog.oncancel = event => { event.preventDefault(); close(undefined); };
      dialog.onclick = event => { if (event.target === dialog) close(undefined); };
      if (dialog.showModal) { dialog.classList.remove("plain"); dialog.showModal(); }
      else { dialog.classList.add("plain"); dialog.setAttribute("open", ""); }
      heading.focus({ preventScroll: true });
    });
  }
  const isSheetOpen = () => putAway !== null;
  const closeSheet = () => { if (putAway) putAway(undefined); };

  // A question answered by one of several buttons: [answer, words, more attributes].
  const choose = (title, choices, ...before) => sheet(title, (put, close) => put.body(...before,
    el("div", { class: "choices" }, choices.map(([answer, words, more]) => button(words, () => close(answer), more)))));

  speak(language);
  paint(theme());
  return { parts, remembered, remember, tables, language: () => language, t, many, speak, theme, paint, el, button, attempt,
    feel, word, complain, problemWords, announce, sheet, isSheetOpen, closeSheet, choose };
})();
