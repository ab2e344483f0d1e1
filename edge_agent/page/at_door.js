// What happens at a door: scanning, and every way a visit may end.
"use strict";
(() => {
  const { t, many, el, button, word, complain, feel, sheet, choose, say, sayPicture, parts } = waywarden;

  // The agent keeps reasons as they are written here, in English, whatever the page speaks.
  const REASONS = {
    attempted: [["reason_nobody", "nobody answered"], ["reason_no_way_in", "no way in"], ["reason_not_found", "address not found"],
      ["reason_closed", "closed"], ["reason_no_parking", "nowhere to stop"], ["reason_unsafe", "not safe"],
      ["reason_no_id", "no valid ID"]],
    collection: [["reason_nobody", "nobody answered"], ["reason_not_ready", "nothing was ready"], ["reason_no_way_in", "no way in"],
      ["reason_not_found", "address not found"], ["reason_closed", "closed"], ["reason_no_parking", "nowhere to stop"]],
    refused: [["reason_not_wanted", "the customer did not want it any more"], ["reason_not_ordered", "the customer did not order it"],
      ["reason_wrong_goods", "wrong goods"], ["reason_too_young", "too young"], ["reason_no_id", "no valid ID"]],
    damaged: [["reason_crushed", "the parcel is crushed"], ["reason_wet", "the parcel is wet"], ["reason_torn", "the parcel is torn open"],
      ["reason_leaking", "the parcel leaks or is broken"]],
    part: [["reason_not_in_load", "not found in the load"], ["reason_part_refused", "the rest was refused"],
      ["reason_part_damaged", "the rest is damaged"]],
  };

  // The sheet that is open while parcels are scanned wants to know of each.
  let heardScan = () => {};

  // Which parcels have been read, by what the agent said and what was read here while it was out of reach.
  let read = new Set();
  const isScanned = barcode => read.has(barcode);
  // What the agent has read is so; what was read here and still waits for the van is so too.
  function scansAre(scans) {
    const waits = new Set(waywarden.kept().filter(entry => entry.path === "/api/scan").map(entry => entry.json.text));
    read = new Set([...scans, ...[...read].filter(barcode => waits.has(barcode) || waits.has(short(barcode)))]);
    heardScan();
  }
  const unscanned = stop => stop.parcels.filter(barcode => !isScanned(barcode));
  const short = barcode => barcode.slice(barcode.indexOf(":") + 1);
  const stopOf = id => ((waywarden.day || {}).stops || []).find(stop => stop.stop_id === id);

  // A label's text, from whatever read it. True when it belongs to the stop at hand.
  async function scanned(text, stop = waywarden.present()) {
    const result = await say("/api/scan", { text });
    if (result.ok) return took(result.answer, stop);
    if (result.later) {
      const known = stop && stop.parcels.find(barcode => barcode === text || short(barcode) === text);
      if (known) return took({ parcel: known, stop_id: stop.stop_id }, stop);
      word(t("scan_stranger", { parcel: text }), "bad");
      return false;
    }
    complain(result.problem);
    return false;
  }

  function took({ parcel, stop_id: of }, stop) {
    const name = short(parcel || "");
    if (parcel) read.add(parcel);
    if (of && stop && of === stop.stop_id) {
      feel("right");
      word(unscanned(stop).length ? t("scan_ok", { parcel: name }) : t("scan_all"));
      waywarden.render();
      heardScan();
      return true;
    }
    feel("wrong");
    const other = of && stopOf(of);
    word(other ? t("scan_elsewhere", { parcel: name, address: other.address }) : t("scan_stranger", { parcel: name }), "bad");
    return false;
  }

  function parcelRow(stop, barcode) {
    const name = short(barcode), shelf = (stop.stow || {})[barcode];
    return el("li", { class: "parcel" + (isScanned(barcode) ? " is-scanned" : "") },
      el("span", { class: "shelf" + (shelf ? "" : " unknown"), "aria-label": shelf ? t("stow", { place: shelf }) : null, role: shelf ? "img" : null },
        shelf || "–"),
      el("span", { class: "number" }, name.slice(0, -4), el("b", {}, name.slice(-4))),
      el("span", { class: "mark", role: "img", "aria-label": t(isScanned(barcode) ? "scanned" : "not_scanned") }, "✓"));
  }

  // True when every parcel of the stop has been scanned.
  function scanAll(stop) {
    let stopCamera = () => {};
    return sheet(t("scan_title"), (put, close) => {
      const list = el("ul", { class: "parcels" }), told = el("div", { class: "notice", role: "status" });
      const show = () => {
        list.replaceChildren(...stop.parcels.map(barcode => parcelRow(stop, barcode)));
        if (!unscanned(stop).length) close(true);
      };
      heardScan = show;
      const typed = el("input", { type: "text", id: "typed", autocomplete: "off", autocapitalize: "characters", enterkeyhint: "done" });
      const take = async () => { const text = typed.value.trim(); typed.value = ""; if (text) await scanned(text, stop); };
      typed.addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); take(); } });
      const onText = answer => took(answer, stop);
      const camera = waywarden.attempt(() => parts.camera && parts.camera(onText, words => { told.textContent = words; }));
      if (camera) { stopCamera = camera.stop; put.body(camera.view, camera.file); }
      put.body(told, el("p", { class: "soft" }, t("scan_hint")), list,
        el("label", { for: "typed" }, t("scan_type"), el("div", { class: "line" }, typed, button(t("scan_take"), take))));
      show();
    }).then(isAll => { heardScan = () => {}; waywarden.attempt(() => stopCamera()); return isAll === true; });
  }

  async function reasonFor(outcome, stop) {
    const list = REASONS[outcome === "attempted" && stop.service === "collection" ? "collection" : outcome];
    const answer = await choose(t("why_" + outcome),
      [...list.map(([key, words]) => [words, t(key)]), ["", t("reason_other"), { class: "whole" }]]);
    return answer === "" ? inOwnWords(t("why_" + outcome), t("reason_words")) : answer;
  }

  const inOwnWords = (title, label, first = "", most = 300) => sheet(title, (put, close) => {
    const field = el("input", { type: "text", id: "own-words", maxlength: most, autocomplete: "off" });
    field.value = first;
    const send = () => field.value.trim() ? close(field.value.trim()) : field.focus();
    field.addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); send(); } });
    put.body(el("label", { for: "own-words" }, label, field));
    put.foot(button(t("send"), send, { class: "go" }));
  });

  async function whichStay(stop) {
    return sheet(t("which_stay"), (put, close) => {
      const stay = new Set();
      const rows = stop.parcels.map(barcode => {
        const state = el("span", { class: "state" }, t("handed"));
        const row = el("button", { type: "button", class: "parcel", "aria-pressed": "false", onclick: () => {
          if (stay.has(barcode)) stay.delete(barcode); else stay.add(barcode);
          row.setAttribute("aria-pressed", String(stay.has(barcode)));
          state.textContent = t(stay.has(barcode) ? "stays" : "handed");
          go.disabled = stay.size === 0;
        } }, el("span", { class: "shelf" }, (stop.stow || {})[barcode] || "–"), el("span", { class: "number" }, short(barcode)), state);
        return row;
      });
      const go = button(t("next_step"), () => close([...stay]), { class: "go", disabled: true });
      put.body(el("p", { class: "soft" }, t("which_stay_hint")), ...rows);
      put.foot(go);
    });
  }

  // The date on or before which somebody was born who is 18 today, by the depot's calendar.
  function bornBy(nowMs, offsetS) {
    const today = new Date(nowMs + offsetS * 1000);
    const isLeapDay = today.getUTCMonth() === 1 && today.getUTCDate() === 29;
    const born = new Date(Date.UTC(today.getUTCFullYear() - 18, today.getUTCMonth(), isLeapDay ? 28 : today.getUTCDate()));
    const tag = waywarden.language() === "en" ? "en-GB" : waywarden.language();
    return waywarden.attempt(() => new Intl.DateTimeFormat(tag, { day: "numeric", month: "numeric", year: "numeric", timeZone: "UTC" })
      .format(born), born.toISOString().slice(0, 10));
  }

  const askAge = () => sheet(t("age_title"), (put, close) => {
    put.body(el("p", {}, t("age_hint")), el("p", { class: "born figures" }, bornBy(waywarden.nowMs(), waywarden.day.utc_offset_s)));
    put.foot(button(t("age_yes"), () => close("checked"), { class: "go" }), button(t("age_no"), () => close("no"), { class: "stop" }));
    // Both answers matter alike: one below the other.
    document.querySelector(".sheet-foot").classList.remove("two");
  });

  // {digest} or {key} of the signature; undefined when it was put away.
  async function signature(stop) {
    const blob = await (parts.sign ? parts.sign() : paperSignature());
    return blob ? stored("signature", stop, blob) : undefined;
  }

  // Without a pad: signed on paper, photographed.
  const paperSignature = () => sheet(t("sign_title"), (put, close) => {
    put.body(el("p", {}, t("sign_paper")));
    put.foot(fileButton(t("photo_paper"), async file => close(await small(file))));
  });

  function fileButton(words, onFile, more = {}) {
    const input = el("input", { type: "file", accept: "image/*", capture: "environment", "aria-label": words });
    input.addEventListener("change", () => { if (input.files && input.files[0]) onFile(input.files[0]); });
    return el("span", { class: "button file go", ...more }, words, input);
  }

  // A picture small enough to be kept. Without the part that makes it small only a small one will do.
  async function small(file) {
    const made = parts.small ? await parts.small(file).catch(() => null) : null;
    const found = made || (file.size <= 400000 && /^image\/(png|jpeg)$/.test(file.type) ? file : null);
    if (!found) word(t("photo_too_large"), "bad");
    return found;
  }

  async function photo(stop, hint) {
    const blob = await sheet(t("photo_title"), (put, close) => {
      const seen = el("div", {});
      const use = button(t("photo_use"), () => close(use.blob), { class: "go", hidden: true });
      put.body(el("p", {}, hint), seen);
      put.foot(fileButton(t("photo_take"), async file => {
        use.blob = await small(file);
        if (!use.blob) return;
        const shown = el("img", { class: "taken", alt: t("photo_taken"), src: URL.createObjectURL(use.blob) });
        shown.addEventListener("load", () => URL.revokeObjectURL(shown.src));
        seen.replaceChildren(shown);
        use.hidden = false;
      }), use, button(t("photo_without"), () => close("without")));
      document.querySelector(".sheet-foot").classList.remove("two");
    });
    if (!blob || blob === "without") return blob;
    return stored("photo", stop, blob);
  }

  async function stored(kind, stop, blob) {
    const found = await sayPicture(kind, stop.stop_id, blob);
    if (!found.problem) return found;
    complain(found.problem);
    return undefined;
  }

  // Ask what this outcome needs, then say it. Whoever puts a sheet away changes nothing.
  async function end(stop, outcome) {
    const body = { stop_id: stop.stop_id, outcome }, takes = {};
    const put = (field, found) => { if (found.digest) body[field] = found.digest; else { body[field] = null; takes[field] = found.key; } };
    if (outcome.startsWith("delivered_") && unscanned(stop).length && !await scanAll(stop)) return;
    if (outcome === "delivered_to_person" && stop.service === "age_check") {
      const answer = await askAge();
      if (answer === "no") return void await end(stop, "refused");
      if (answer !== "checked") return;
      body.age_checked = true;
    }
    if (outcome === "delivered_to_person" && stop.service === "signature") {
      const found = await signature(stop);
      if (!found) return;
      put("signature", found);
    }
    if (outcome === "delivered_to_neighbour") {
      const named = stop.neighbour ? t("neighbour_named", { name: stop.neighbour }) + " · " : "";
      const where = await inOwnWords(t("neighbour_title"), named + t("neighbour_where"), "", 60);
      if (where === undefined) return;
      body.reason = where;
    }
    if (outcome === "part") {
      const stay = await whichStay(stop);
      if (!stay) return;
      body.parcels_left = stay;
    }
    if (outcome in REASONS) {
      body.reason = await reasonFor(outcome, stop);
      if (!body.reason) return;
    }
    if (outcome === "missing_from_load" && !await sure(t("outcome_missing_from_load"))) return;
    if (outcome === "delivered_to_safe_place" || outcome === "damaged") {
      const found = await photo(stop, t(outcome === "damaged" ? "photo_hint_damaged" : "photo_hint_safe"));
      if (found === undefined) return;
      if (found !== "without") put("photo", found);
    }
    const result = await say("/api/outcome", body, { takes, stop_id: stop.stop_id });
    if (result.ok) { feel("done"); word(t("saved")); }
    else if (result.later) word(t("kept"));
    else complain(result.problem);
    waywarden.render();
  }

  const sure = (words, ...more) => choose(words, [[true, words, { class: "whole go" }], [false, t("cancel"), { class: "whole" }]], ...more);

  const mayBeLeft = stop => stop.service === "hand_over" || stop.service === "leave_safe";

  async function otherOutcome(stop) {
    const isCollection = stop.service === "collection";
    const well = isCollection ? ["collected"]
      : ["delivered_to_person", ...(mayBeLeft(stop) ? ["delivered_to_neighbour", "delivered_to_safe_place", "delivered_to_locker"] : [])];
    const not = isCollection ? ["attempted", "refused"]
      : ["attempted", "refused", "damaged", ...(stop.parcels.length > 1 ? ["part"] : []), "missing_from_load"];
    const outcome = await sheet(t("how_ended"), (put, close) => {
      const offer = list => el("div", { class: "choices" }, list.map(o => button(t("outcome_" + o), () => close(o))));
      put.body(el("h3", {}, t("group_not_possible")), offer(not), el("h3", {}, t("group_delivered")), offer(well));
    });
    if (outcome) await end(stop, outcome);
  }

  // The one thing most likely to be done next at this door: [words, act].
  function mainAct(stop) {
    const left = stop.service === "collection" ? 0 : unscanned(stop).length;
    if (left) return [many("scan_left", left), async () => { if (await scanAll(stop)) waywarden.render(); }];
    const [words, outcome] = { signature: ["sign", "delivered_to_person"], age_check: ["check_age", "delivered_to_person"],
      collection: ["collected", "collected"], leave_safe: ["in_safe_place", "delivered_to_safe_place"] }[stop.service]
      || ["handed_over", "delivered_to_person"];
    return [t(words), () => end(stop, outcome)];
  }

  Object.assign(waywarden, { scansAre, scansShown: () => [...read], scanned, took, parcelRow, otherOutcome, mainAct, sure, inOwnWords, fileButton, small, short, bornBy });
})();
