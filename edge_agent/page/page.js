// The day on the phone: what is shown in each state of the shift, and what lies under the thumb.
"use strict";
(() => {
  const { t, many, el, button, word, complain, feel, sheet, choose, attempt, parts, say, heard, sure } = waywarden;
  const place = id => document.getElementById(id);

  let isLocked = false, isAway = false, isStarting = true;
  let rate = 1, metAt = null, heardAt = 0;
  // How long the day stays on the screen without a word from the van.
  const KNOWN_FOR_MS = 2 * 3600 * 1000;
  let shownChange = null, spokenNext = null, blocked = 0;
  const addresses = new Map();

  // Time: the depot's, not the phone's, which may be set to another country's. A demonstration's day runs faster.
  const nowMs = () => metAt === null ? waywarden.day.now_ms : waywarden.day.now_ms + rate * (performance.now() - metAt);
  const clock = ms => new Date(ms + 1000 * waywarden.day.utc_offset_s).toISOString().slice(11, 16);
  const span = pair => clock(pair[0]) + "–" + clock(pair[1]);
  const time = words => el("time", {}, words);

  function take(day) {
    const at = performance.now(), before = waywarden.day;
    if (before && metAt !== null && at - metAt > 500) {
      const seen = (day.now_ms - before.now_ms) / (at - metAt);
      if (seen > 0 && seen < 5000) rate = seen;
    }
    waywarden.day = day;
    metAt = at;
    heardAt = Date.now();
    isLocked = isStarting = isAway = false;
    for (const stop of day.stops) addresses.set(stop.stop_id, stop.address);
    if (day.scans) attempt(() => waywarden.scansAre(day.scans));
  }

  // Stops to come, without those whose outcome waits here for the van.
  function stopsToCome() {
    const ended = new Set(waywarden.kept().filter(entry => entry.path === "/api/outcome").map(entry => entry.stop_id));
    return waywarden.day.stops.filter(stop => !ended.has(stop.stop_id));
  }
  const present = () => waywarden.day ? stopsToCome()[0] : undefined;
  const isMoving = () => Boolean(waywarden.day && waywarden.day.is_moving && !waywarden.day.at_stop
    && waywarden.day.shift === "under_way" && present());

  // Words about one stop.

  const addressOf = id => addresses.get(id) || "";
  function twoLines(address) {
    const [first, ...rest] = address.split(",");
    return [first.trim(), rest.join(",").trim()];
  }
  function punctual(stop) {
    if (!stop.estimate) return el("span", { class: "soft" }, t("no_estimate"));
    const [, p50, p90] = stop.estimate, closes = stop.told[1];
    const late = Math.round((p50 - closes) / 60000);
    if (late > 0) return el("span", { class: "late" }, t("late_min", { n: late }));
    if (p90 > closes) return el("span", { class: "tight" }, t("may_be_late", { n: Math.max(1, Math.round((p90 - closes) / 60000)) }));
    return el("span", { class: "in-time" }, t("in_time"));
  }
  const when = stop => el("p", { class: "when" }, stop.estimate ? time(clock(stop.estimate[1])) : null, punctual(stop),
    el("span", { class: "promise figures" }, t("told", { span: span(stop.told) })));
  function facts(stop, withShelves = false) {
    const known = stop.parcels.map(barcode => (stop.stow || {})[barcode]).filter(Boolean);
    const shelves = withShelves && known.length ? ": " + known.slice(0, 3).join(", ") + (known.length > 3 ? "…" : "") : "";
    const demands = ["signature", "age_check", "collection"].includes(stop.service);
    const found = [el("li", { class: demands ? "must" : null }, t("service_" + stop.service)),
      el("li", {}, many("parcels", stop.parcels.length), shelves)];
    if (stop.attempt > 1) found.push(el("li", { class: "must" }, t("attempt", { n: stop.attempt })));
    if (stop.floor) found.push(el("li", {}, t(stop.has_lift ? "floor_lift" : "floor_stairs", { n: stop.floor })));
    if (stop.is_business) found.push(el("li", {}, t("business")));
    if (stop.open_hours) found.push(el("li", {}, t("open_hours", { span: span(stop.open_hours) })));
    return el("ul", { class: "facts" }, found);
  }
  function knows(stop) {
    const entry = (key, words, kind) => words ? el("div", { class: kind }, el("dt", {}, t(key)), el("dd", {}, words)) : null;
    const found = [entry("door_code", stop.door_code, "code"), entry("note", stop.note), entry("safe_place", stop.safe_place),
      entry("neighbour", stop.neighbour)].filter(Boolean);
    return found.length ? el("dl", { class: "knows" }, found) : null;
  }
  function street(stop, tag = "h1") {
    const [first, rest] = twoLines(stop.address);
    return [el(tag, { class: "street" + (first.length > 26 || first.split(/[\s–-]/).some(part => part.length > 13) ? " long" : "") }, first), rest ? el("p", { class: "town" }, rest) : null];
  }
  // A geo: link opens whatever navigates on an Android phone; an iPhone knows maps: instead.
  function geo(stop) {
    const [lat, lon] = stop.position, there = `${lat},${lon}`, name = encodeURIComponent(stop.address);
    return /iPhone|iPad|iPod/.test(navigator.userAgent) ? `maps://?daddr=${there}&q=${name}` : `geo:${there}?q=${there}(${name})`;
  }
  const navigate = (stop, more = {}) => el("a", { class: "button", href: geo(stop), "data-at": "navigate", ...more }, t("navigate"));
  const MOST_PARCELS = 5;
  const parcels = stop => {
    if (!stop.parcels.length) return null;
    const row = barcode => waywarden.parcelRow(stop, barcode);
    const first = el("ul", { class: "parcels" }, stop.parcels.slice(0, MOST_PARCELS).map(row));
    const rest = stop.parcels.slice(MOST_PARCELS);
    return [first, rest.length ? el("details", { "data-open": "parcels" }, el("summary", { "data-at": "more-parcels" }, many("show_all", rest.length)),
      el("ul", { class: "parcels" }, rest.map(row))) : null];
  };

  // The stop under way, or next.

  function hero(stop) {
    const day = waywarden.day, isHere = day.at_stop === stop.stop_id, isGoing = day.heading_to === stop.stop_id;
    return el("section", { class: "card hero", "aria-label": t("next") },
      el("p", { class: "kicker" + (isHere ? " here" : "") }, el("span", { class: "place" }, String(day.done.length + 1)),
        t(isHere ? "here" : isGoing ? "on_the_way" : "next")),
      street(stop), when(stop), facts(stop, !isHere && !isGoing), knows(stop), isGoing && !isHere ? navigate(stop) : null,
      isHere || isGoing ? parcels(stop) : null);
  }

  function row(stop, number) {
    const [first, rest] = twoLines(stop.address);
    return el("li", {}, el("button", { type: "button", class: "row", "data-at": "stop-" + stop.stop_id, onclick: () => openStop(stop) },
      el("span", { class: "place" }, String(number)), el("span", { class: "name" }, first, rest ? el("small", {}, rest) : null),
      stop.estimate ? time(clock(stop.estimate[1])) : el("span", {}),
      el("span", { class: "state" }, t("told", { span: span(stop.told) }), " · ", punctual(stop))));
  }
  function thereafter(others) {
    const before = waywarden.day.done.length + 2;
    const made = [el("section", { class: "card then" }, el("h2", {}, t("after_that")),
      el("ol", {}, others.slice(0, 2).map((stop, k) => row(stop, before + k))))];
    if (others.length > 2) made.push(el("section", { class: "card then" }, el("details", { "data-open": "rest" },
      el("summary", { "data-at": "rest" }, many("more_stops", others.length - 2)),
      el("ol", {}, others.slice(2).map((stop, k) => row(stop, before + 2 + k))))));
    return made;
  }

  async function openStop(stop) {
    const answer = await sheet(twoLines(stop.address)[0], (put, close) => {
      put.body(el("p", { class: "town" }, twoLines(stop.address)[1]), when(stop), facts(stop), knows(stop), parcels(stop),
        el("div", { class: "pair" }, navigate(stop), button(t("copy_address"), () => copy(stop))));
      if (waywarden.day.shift !== "ended") put.foot(button(t("go_here_first"), () => close("go"), { class: "go" }));
    });
    if (answer === "go") setOff(stop);
  }
  async function copy(stop) {
    const text = `${stop.address} (${stop.position.join(", ")})`;
    try { await navigator.clipboard.writeText(text); word(t("copied")); }
    catch (forbidden) { word(t("copy_failed", { text })); }
  }

  // What the driver says. Problems are told in words; what waits for the van is told too.

  async function tell(path, body, words) {
    const result = await say(path, body);
    if (result.ok && words) word(words);
    else if (result.later) word(t("kept"));
    else if (!result.ok) complain(result.problem);
    return result;
  }
  const setOff = stop => tell("/api/heading", { stop_id: stop.stop_id });
  const shift = is => tell("/api/shift", { is });
  async function endShift() {
    const left = stopsToCome().length;
    const answer = left ? await choose(t("end_sure"), [[true, t("shift_ended"), { class: "whole stop" }], [false, t("cancel"), { class: "whole" }]],
      el("p", {}, many("end_sure_left", left))) : true;
    if (answer) shift("ended");
  }

  // States without a stop.

  const quiet = (sign, title, ...more) => el("section", { class: "quiet" }, el("div", { class: "sign", "aria-hidden": "true" }, sign),
    el("h1", {}, title), more);
  function ready(stops) {
    const day = waywarden.day, parcelsAll = stops.reduce((sum, stop) => sum + stop.parcels.length, 0);
    const figure = words => { const [n, ...rest] = words.split(" "); return el("p", {}, el("b", { class: "figures" }, n), rest.join(" ")); };
    return [quiet("○", t("ready"), day.depart_ms && day.depot ? el("p", {}, t("leaves_at", { depot: day.depot.name, time: clock(day.depart_ms) })) : null,
      el("div", { class: "figure-row" }, figure(many("stops", stops.length)), figure(many("parcels", parcelsAll)))),
      stops.length ? el("section", { class: "card then" }, el("h2", {}, t("first_stop")),
        el("ol", {}, stops.slice(0, 3).map((stop, k) => row(stop, day.done.length + k + 1)))) : null];
  }
  function allDone() {
    const day = waywarden.day;
    return [quiet("✓", t("all_done"), el("p", {}, t("back_to", { depot: day.depot ? day.depot.name : "" })),
      day.on_board ? el("p", { class: "back-load" }, many("on_board", day.on_board)) : null, day.depot ? navigate({ ...day.depot, address: day.depot.name }) : null)];
  }
  function ahead(stop) {
    return [el("section", { class: "ahead" }, el("p", { class: "kicker" }, t(waywarden.day.heading_to === stop.stop_id ? "on_the_way" : "next")),
      street(stop), when(stop))];
  }
  function breakWords() {
    const rest = waywarden.day.break;
    return !rest ? null : rest.taken ? t("break_taken")
      : t("break_plan", { min: Math.round(rest.duration_s / 60), span: span([rest.earliest_ms, rest.latest_ms]) });
  }

  function content() {
    const day = waywarden.day;
    if (day.plan_version === null) return [quiet("…", t("no_work"), el("p", {}, t("no_work_more")))];
    const stops = stopsToCome();
    if (isMoving()) return ahead(stops[0]);
    if (day.shift === "ended") return [quiet("✓", t("ended"), el("p", {}, t("ended_more")))];
    if (day.shift === "on_break") return [quiet("‖", t("on_break"), el("p", {}, t("on_break_more"))),
      stops.length ? el("section", { class: "card then" }, el("h2", {}, t("next")), el("ol", {}, stops.slice(0, 2).map((stop, k) => row(stop, day.done.length + k + 1)))) : null];
    if (!stops.length) return allDone();
    if (day.shift === "waiting") return ready(stops);
    return [hero(stops[0]), ...(stops.length > 1 ? thereafter(stops.slice(1)) : [])];
  }

  // The dock.

  function reasonWords(change) {
    const why = change.reason;
    if (!why) return { cause: change.why + ".", effect: "" };
    const address = twoLines(change.about || addressOf(why.cause_stop))[0];
    if (why.cause_stop && !address) return { cause: change.why + ".", effect: "" };
    let cause = t("cause_" + why.cause, { n: why.cause_min, address, time: why.cause_ms ? clock(why.cause_ms) : "" });
    if (why.cause_count > 1) cause += " " + many("cause_and", why.cause_count - 1);
    const effects = [];
    if (why.moved) effects.push(many("moved", why.moved));
    if (["keeps_windows", "waits_less"].includes(why.effect)) effects.push(many("effect_" + why.effect, why.effect_count, { min: why.effect_min }));
    else if (why.effect && why.effect !== "none") effects.push(t("effect_" + why.effect, { min: why.effect_min }));
    if (why.worse_count) effects.push(many("effect_worse", why.worse_count, { min: why.worse_min }));
    return { cause, effect: effects.join(" · ") };
  }
  function changeCard(change) {
    const toCome = stopsToCome(), known = new Set(toCome.map(stop => stop.stop_id));
    const after = change.after.filter(id => known.has(id)), before = change.before.filter(id => known.has(id));
    const { cause, effect } = reasonWords(change);
    // A wish may leave the order as it was: then there is nothing to look through, and nothing to go back to.
    const first = after.findIndex((id, k) => id !== before[k]), isOtherOrder = first >= 0;
    const order = (isOtherOrder ? after.slice(first, first + 3) : []).map((id, k) => el("li", { "data-place": String(waywarden.day.done.length + first + k + 1),
      class: before[first + k] === id ? null : "moved" }, twoLines(addressOf(id))[0]));
    // Work that was added has no former place: the order of the others is what can be kept.
    const hasFormer = after.filter(id => before.includes(id)).some((id, k) => id !== before.filter(id => after.includes(id))[k]);
    const title = t(isOtherOrder ? "change_title" : "change_same_order");
    return el("section", { class: "word-card", "aria-label": title },
      el("h2", {}, title, " ", el("span", { class: "figures" }, t("change_at", { time: clock(change.at_ms) }))),
      el("p", {}, cause), effect ? el("p", { class: "effect" }, effect) : null, isOtherOrder ? el("ol", {}, order) : null,
      el("div", { class: hasFormer ? "pair" : "actions" }, hasFormer ? button(t("change_refused"), () => refuse(change), { "data-at": "refuse" }) : null,
        button(t("change_seen"), () => seen(change), { class: hasFormer ? "go" : "go grow", "data-at": "seen" })));
  }
  // At a door the door comes first: the change is one line there, and the rest of it a touch away.
  const changeLine = change => el("button", { type: "button", class: "word-line", "data-at": "change", onclick: () =>
    sheet(t("change_title"), put => put.body(changeCard(change))) },
    el("span", {}, el("small", {}, t("change_title")), reasonWords(change).cause), el("span", { "aria-hidden": "true" }, "›"));
  function seen(change) {
    waywarden.closeSheet();
    tell("/api/change", { change_id: change.change_id, answer: "seen", reason: "" }, t("thanks"));
  }
  // As in at_door.js, the agent keeps reasons in English.
  const REFUSALS = [["refuse_nearly_there", "I am nearly at the other one"], ["refuse_customer", "the customer asked me"],
    ["refuse_load", "the load lies otherwise"], ["refuse_road", "that way is no good"], ["refuse_other", "I know better here"]];
  async function refuse(change) {
    const reason = await choose(t("change_why"), REFUSALS.map(([key, words]) => [words, t(key), { class: "whole" }]));
    if (reason) tell("/api/change", { change_id: change.change_id, answer: "refused", reason }, t("thanks"));
  }
  const OVERRIDES = ["customer_asked", "parcel_at_hand", "road", "knows_better", "other"];
  function questionCard(question) {
    const answer = reason => tell("/api/override", { stop_id: question.stop_id, reason }, reason === "no_answer" ? "" : t("thanks"));
    const address = twoLines(addressOf(question.stop_id) || question.address || "")[0];
    return el("section", { class: "word-card", "aria-label": t("why") },
      el("p", {}, t("question", { address })),
      el("div", { class: "pair" }, [...OVERRIDES, "no_answer"].map(reason => button(t("override_" + reason), () => answer(reason), { "data-at": reason }))));
  }

  function actions() {
    const day = waywarden.day, menu = el("button", { type: "button", "aria-label": t("menu"), "data-at": "menu", onclick: openMenu }, "☰");
    const go = (words, act) => button(words, act, { class: "go grow", "data-at": "go" });
    const line = (...made) => el("div", { class: "actions" }, menu, made);
    if (day.plan_version === null) return line();
    const stops = stopsToCome(), first = stops[0];
    if (day.shift === "ended") return line();
    if (day.shift === "on_break") return line(go(t("shift_off_break"), () => shift("off_break")));
    if (!first) return line(go(t("shift_ended"), endShift));
    if (day.shift === "waiting") return line(go(t("shift_begun"), () => shift("begun")));
    const isUnderWay = day.at_stop === first.stop_id || day.heading_to === first.stop_id;
    if (!isUnderWay) return line(navigate(first), go(t("set_off"), () => setOff(first)));
    const [words, act] = waywarden.mainAct(first);
    return line(button(t("other_outcome"), () => waywarden.otherOutcome(first), { "data-at": "other" }), go(words, act));
  }
  function dock() {
    const day = waywarden.day;
    if (!day || isLocked || isMoving()) return [];
    const made = [];
    if (day.question) made.push(questionCard(day.question));
    else if (day.change && stopsToCome().length) made.push(day.at_stop ? changeLine(day.change) : changeCard(day.change));
    return [...made, actions()];
  }

  const SHIFTS = { waiting: ["begun"], under_way: ["on_break", "ended"], on_break: ["off_break", "ended"], ended: ["begun"] };
  function openMenu() {
    sheet(t("menu"), (put, close) => {
      const day = waywarden.day, act = is => { close(); if (is === "ended") endShift(); else shift(is); };
      const words = is => t(day.shift === "ended" ? "shift_again" : "shift_" + is);
      const offered = day && day.plan_version !== null ? SHIFTS[day.shift] || [] : [];
      const planned = day && day.plan_version !== null ? breakWords() : null;
      if (planned) put.body(el("p", { class: "soft" }, planned));
      if (offered.length) put.body(el("div", { class: "choices" }, offered.map(is => button(words(is), () => act(is),
        { class: "whole" + (is === "ended" ? " stop" : "") }))));
      put.body(el("h3", {}, t("language_label")), segments(Object.keys(waywarden.tables), waywarden.language(),
        tag => (waywarden.tables[tag] || {}).language || tag, tag => { waywarden.speak(tag); close(); render(true); }));
      put.body(el("h3", {}, t("theme_label")), segments(["auto", "day", "night"], waywarden.theme(), name => t("theme_" + name),
        name => { waywarden.paint(name); close(); render(true); }));
      const more = attempt(() => parts.menu && parts.menu(), null);
      if (more) put.body(more);
    });
  }
  const segments = (names, present, words, act) => el("div", { class: "segments", role: "group" }, names.map(name =>
    el("button", { type: "button", "aria-pressed": String(name === present), lang: name.length === 2 ? name : null, onclick: () => act(name) }, words(name))));

  // The gate: the code shown at the depot.

  function gate() {
    const told = el("p", { class: "notice", role: "alert" });
    const field = el("input", { type: "text", id: "code", inputmode: "numeric", autocomplete: "one-time-code", maxlength: "6",
      pattern: "[0-9]*", "aria-describedby": "code-where", enterkeyhint: "go" });
    const open = el("button", { class: "go" }, t("gate_go"));
    field.addEventListener("input", () => { field.value = field.value.replace(/\D/g, ""); if (field.value.length === 6) form.requestSubmit ? form.requestSubmit() : enter(); });
    const enter = async () => {
      if (open.disabled || !field.value) return void field.focus();
      open.disabled = true;
      const got = await waywarden.post("/api/session", { json: { code: field.value } });
      open.disabled = Date.now() < blocked;
      if (got === null) told.textContent = t("agent_silent");
      else if (got.status < 300) return void begin();
      else if (got.status === 429) wait(got.body.retry_after_s || 30);
      else { told.textContent = t("gate_wrong"); feel("wrong"); }
      field.value = "";
      field.focus();
    };
    const wait = seconds => { blocked = Date.now() + seconds * 1000; tickWait(); };
    const tickWait = () => {
      const left = Math.ceil((blocked - Date.now()) / 1000);
      open.disabled = left > 0;
      if (!told.isConnected) return;
      told.textContent = left > 0 ? t("gate_wait", { s: left }) : "";
      if (left > 0) setTimeout(tickWait, 1000);
    };
    const form = el("form", { class: "gate", novalidate: true, onsubmit: event => { event.preventDefault(); enter(); } },
      el("h1", {}, t("gate_title")), el("p", { id: "code-where" }, t("gate_ask")), el("label", { for: "code", class: "soft" }, t("gate_label"), field), told, open,
      segments(Object.keys(waywarden.tables), waywarden.language(), tag => (waywarden.tables[tag] || {}).language || tag,
        tag => { waywarden.speak(tag); render(true); }));
    if (Date.now() < blocked) setTimeout(tickWait, 0);
    return form;
  }

  // Putting it on the screen. What has the focus, and what is unfolded, stays so.

  function head() {
    const day = waywarden.day;
    if (!day || isLocked) return [];
    const all = day.done.length + day.stops.length, done = all - stopsToCome().length;
    const bar = el("i", {});
    bar.style.width = all ? (100 * done / all) + "%" : "0";
    const chips = [];
    const kept = waywarden.kept().length;
    if (isAway) chips.push(t("no_contact"));
    if (isStarting) chips.push(t("agent_restarting"));
    if (kept) chips.push(many("waiting_to_send", kept));
    if (!isAway && !day.link_is_up) chips.push(t("alone"));
    if (!isAway && day.is_tight) chips.push(t("disk_full"));
    if (!isAway && day.is_dated === false) chips.push(t("time_unknown"));
    return [el("div", { class: "head" }, el("time", { class: "clock", id: "clock" }, clock(nowMs())), el("span", { class: "who" }, day.agent),
      all ? el("span", { class: "so-far figures", id: "so-far", "aria-label": t("done_of", { done, all }), role: "img" }, `${done} / ${all}`) : null),
      all ? el("div", { class: "bar", "aria-hidden": "true" }, bar) : null, el("div", { class: "chips" }, chips.map(words => el("span", { class: "chip" }, words)))];
  }

  let painted = "";
  function render(isForced = false) {
    const key = JSON.stringify([waywarden.day && { ...waywarden.day, now_ms: 0 }, isLocked, isAway, isStarting, waywarden.kept().length, waywarden.language(),
      waywarden.scansShown()]);
    if (!isForced && key === painted) return;
    painted = key;
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.at : null;
    const open = [...document.querySelectorAll("details[open]")].map(each => each.dataset.open);
    document.body.classList.toggle("is-moving", isMoving());
    document.body.classList.toggle("is-locked", isLocked);
    place("top").replaceChildren(...head().filter(Boolean));
    if (isLocked) {
      if (isForced || !place("code")) { place("day").replaceChildren(gate()); place("code").focus({ preventScroll: true }); }
    }
    else if (waywarden.day) place("day").replaceChildren(...content().flat().filter(Boolean));
    else place("day").replaceChildren(quiet("…", t(isAway ? "no_contact" : "starting"), isAway ? el("p", {}, t("agent_restarting")) : null));
    place("dock").replaceChildren(...dock());
    for (const name of open) { const again = document.querySelector(`details[data-open="${name}"]`); if (again) again.open = true; }
    if (focused && !waywarden.isSheetOpen()) { const again = document.querySelector(`[data-at="${CSS.escape(focused)}"]`); if (again) again.focus({ preventScroll: true }); }
    sayAloud();
  }

  // For who listens instead of looking: a new order and a new next stop, once each.
  function sayAloud() {
    const day = waywarden.day;
    if (!day || isLocked) return;
    const change = day.change ? day.change.change_id : null, next = (present() || {}).stop_id || null;
    const news = [];
    if (change && change !== shownChange) { news.push(t("changed_spoken"), reasonWords(day.change).cause); feel("changed"); }
    if (next && next !== spokenNext) news.push(t("next_spoken", { address: addressOf(next) }));
    if (spokenNext !== null && next !== spokenNext) window.scrollTo(0, 0);
    shownChange = change;
    spokenNext = next;
    if (news.length) waywarden.announce(news.join(" "));
  }

  // Nothing of the day stays in the page: not in its words, nor in what it was served with.
  function forgetDay() {
    waywarden.day = null;
    addresses.clear();
    shownChange = spokenNext = null;
    waywarden.closeSheet();
    waywarden.announce("");
    for (const id of ["word", "known"]) place(id).textContent = "";
  }
  function lock() {
    forgetDay();
    isLocked = true;
    isStarting = isAway = false;
    render();
  }

  // Following the day: one question after the other, each answered when something has changed.

  let asking = null, isWatching = false;
  async function watch() {
    if (isWatching) return;
    isWatching = true;
    let failures = 0;
    while (!isLocked) {
      asking = new AbortController();
      const timer = setTimeout(() => asking.abort(), 30000);
      try {
        const after = waywarden.day && !isAway ? waywarden.day.revision : -1;
        const answer = await fetch("/api/day?after=" + after, { signal: asking.signal, credentials: "same-origin" });
        if (answer.status === 401) { lock(); break; }
        if (!answer.ok) throw new Error(String(answer.status));
        take(await answer.json());
        failures = 0;
        waywarden.send();
        attempt(render);
      } catch (away) {
        failures += 1;
        isAway = failures > 1;
        isStarting = !isAway;
        // The phone has gone home with its page open.
        if (waywarden.day && Date.now() - heardAt > KNOWN_FOR_MS) forgetDay();
        attempt(render);
        await new Promise(go => setTimeout(go, Math.min(3000, 350 * failures)));
      } finally { clearTimeout(timer); }
    }
    isWatching = false;
  }
  function begin() { isLocked = false; isStarting = true; render(true); watch(); }
  const lookAgain = () => { if (asking && (isAway || isStarting)) asking.abort(); };

  heard.changed = () => attempt(render);
  heard.locked = lock;
  heard.refused = (_, problem) => { word(t("not_taken") + ": " + waywarden.problemWords(problem), "bad"); attempt(render); };
  Object.assign(waywarden, { day: null, present, nowMs, render, isMoving });

  const known = attempt(() => JSON.parse(place("known").textContent), null);
  place("known").textContent = "";
  if (known && known.is_locked) lock();
  else { if (known) take(known); render(); watch(); }
  // The optional parts come after the first paint, each on its own.
  requestAnimationFrame(() => setTimeout(() => {
    for (const src of (document.body.dataset.parts || "").split(" ").filter(Boolean))
      document.head.append(Object.assign(document.createElement("script"), { src, async: false }));
  }));
  setInterval(() => { const shown = place("clock"); if (shown && waywarden.day) shown.textContent = clock(nowMs()); }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) lookAgain(); });
  window.addEventListener("online", lookAgain);
})();
