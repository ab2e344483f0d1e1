// Say things to the agent, once each and in order, and keep them here while the van is out of reach: a driver at a
// door on the fourth floor has left the van's Wi-Fi behind.
"use strict";
(() => {
  const { remembered, remember, attempt } = waywarden;
  const PATIENCE_MS = 3000, KNOWN_AWAY_MS = 300;
  const ANSWER_WITHIN_MS = 12000;
  const AGAIN_MS = 900;
  // What is older belongs to another day's work.
  const KEPT_MS = 18 * 3600 * 1000;

  const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, "0")).join("");
  const waiting = new Map();
  let entries = attempt(() => JSON.parse(remembered("outbox") || "[]"), []).filter(entry => Date.now() - entry.at < KEPT_MS);
  remember("outbox", entries.length ? JSON.stringify(entries) : null);
  for (const entry of entries) entry.isKept = true;
  let isSending = false, again = 0;
  const heard = { changed: () => {}, locked: () => {}, refused: () => {} };

  const write = () => { remember("outbox", entries.length ? JSON.stringify(entries) : null); heard.changed(); };

  // {ok, answer} when it was taken, {ok: false, problem} when not, {later: true} when it waits for the van.
  function say(path, body, more = {}) {
    const entry = { key: newKey(), path, json: body, at: Date.now(), ...more };
    // Behind what is kept already there is nothing to wait for.
    const patience = entries.some(other => other.isKept) ? KNOWN_AWAY_MS : PATIENCE_MS;
    entries.push(entry);
    return new Promise(done => {
      waiting.set(entry.key, done);
      setTimeout(() => {
        const left = entries.find(other => other.key === entry.key);
        if (left) { left.isKept = true; write(); }
        settle(entry.key, { later: true, key: entry.key });
      }, patience);
      remember("outbox", JSON.stringify(entries));
      send();
    });
  }

  function settle(key, result) {
    const done = waiting.get(key);
    waiting.delete(key);
    if (done) done(result);
    return Boolean(done);
  }

  async function send() {
    if (isSending) return;
    isSending = true;
    clearTimeout(again);
    try {
      while (entries.length) {
        const entry = entries[0];
        const got = await post(entry.path, entry);
        if (got === null || got.status === 503) { again = setTimeout(send, AGAIN_MS); return; }
        if (got.status === 401) { heard.locked(); return; }
        entries = entries.filter(other => other !== entry);
        const isTaken = got.status < 300;
        if (isTaken && got.body.digest) putDigest(entry.key, got.body.digest);
        write();
        const result = isTaken ? { ok: true, answer: got.body } : { ok: false, problem: got.body };
        if (!settle(entry.key, result) && !isTaken) heard.refused(entry, got.body);
      }
    } finally { isSending = false; }
  }

  // An outcome may name a picture that was itself still waiting: it learns the picture's hash when that is known.
  function putDigest(key, digest) {
    for (const entry of entries)
      for (const [field, of] of Object.entries(entry.takes || {})) if (of === key) entry.json[field] = digest;
  }

  // One try; null when nobody answers.
  async function post(path, { key, json, picture, type }) {
    let body;
    // What cannot even be written down would otherwise stand before everything else for ever.
    try { body = picture ? Uint8Array.from(atob(picture), c => c.charCodeAt(0)) : JSON.stringify(json); }
    catch (broken) { return { status: 400, body: { title: "Broken", detail: String(broken) } }; }
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(), ANSWER_WITHIN_MS);
    try {
      const answer = await fetch(path, { method: "POST", body, signal: patience.signal, credentials: "same-origin",
        headers: { "Content-Type": type || "application/json", "Idempotency-Key": key || newKey() } });
      return { status: answer.status, body: await answer.json() };
    } catch (away) {
      return null;
    } finally { clearTimeout(timer); }
  }

  // Bytes at once, without the outbox: pictures that are only looked at.
  async function postBytes(path, bytes) {
    try {
      const answer = await fetch(path, { method: "POST", body: bytes, credentials: "same-origin",
        headers: { "Content-Type": "application/octet-stream", "Idempotency-Key": newKey() } });
      return { status: answer.status, body: await answer.json() };
    } catch (away) { return null; }
  }

  function base64(blob) {
    return new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done(String(reader.result).split(",")[1] || "");
      reader.onerror = () => failed(reader.error);
      reader.readAsDataURL(blob);
    });
  }

  // A signature or photograph: {digest}, or {key} of what still waits; null when it was not taken.
  async function sayPicture(kind, stopId, blob) {
    const path = `/api/objects?kind=${kind}&stop_id=${encodeURIComponent(stopId)}`;
    const result = await say(path, null, { picture: await base64(blob), type: blob.type, stop_id: stopId });
    if (result.later) return { key: result.key };
    return result.ok ? { digest: result.answer.digest } : { problem: result.problem };
  }

  Object.assign(waywarden, { say, sayPicture, post, postBytes, send, heard, newKey,
    kept: () => entries.filter(entry => entry.isKept) });
})();
