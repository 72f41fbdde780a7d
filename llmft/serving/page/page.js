"use strict";
/* The page of `llmft serve`: asks /info what the models read, /predict or /v1/chat/completions for answers, and /stats
   what happened. Everything that comes from outside becomes text nodes, never HTML. */

const find = (id) => document.getElementById(id);
let language = (localStorage.getItem("language") || navigator.language || "en").startsWith("zh") ? "zh" : "en";
let models = [];
let model = null;
let apiKey = "";
let timer = null;

function say(key, ...values) {
  return WORDS[language][key].replace(/\{(\d)\}/g, (_, number) => String(values[number]));
}

/* An element with attributes, listeners (on...) and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "rect", "line", "text"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "width%") element.style.width = `${value}%`;
    else if (name === "color") element.style.backgroundColor = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function tell(text) {
  find("status").textContent = text;
  find("status").hidden = !text;
}

/* A number with as many digits as people read. */
const digits = (value) => Number(value).toLocaleString(language, { maximumSignificantDigits: 6 });
const percent = (value) => `${(100 * value).toFixed(1)}%`;

/* ---- the server ---- */

class Refused extends Error {}

async function ask(path, body, signal) {
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  const options = { headers, signal };
  if (body !== undefined) Object.assign(options, { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } });
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(say("unreachable"));
  }
  if (response.ok) return response;
  if (response.status === 429) throw new Refused(say("full", response.headers.get("Retry-After") || 1));
  if (response.status === 504) throw new Refused(say("late"));
  if (response.status === 503) throw new Refused(say("loading"));
  const found = await response.json().catch(() => ({}));
  const detail = found.detail || (found.error && (found.error.message || found.error)) || response.statusText;
  if (response.status === 401) {
    find("key-form").hidden = false;
    throw new Refused(say("unauthorized"));
  }
  if (response.status === 422 && path === "predict") throw new Refused(detail.replace(/^rows?\.(0\.)?/, ""));
  throw new Refused(response.status === 413 ? say("tooLarge", detail) : say("failed", response.status, detail));
}

/* ---- what a model reads ---- */

/* A field of the form: its elements, and `read`, which gives the value of the row, undefined if it is left empty. */
function field(input) {
  const id = `field-${input.name}`;
  const label = (...more) => make("label", { for: id }, input.name, ...more);
  const hint = input.required ? null : ` (${say("optional")})`;
  if (input.kind === "image") return imageField(input, id);
  if (input.kind === "text" || input.kind === "json" || input.kind === "texts" || input.kind === "words") {
    const box = make("textarea", { id, dir: "auto", onkeydown: submitByKey });
    const form = { texts: ` (${say("list")})`, json: ` (${say("json")})` }[input.kind];
    const read = () => {
      if (!box.value.trim()) return undefined;
      if (input.kind === "texts") return box.value.split("\n").filter((line) => line.trim());
      if (input.kind === "json") { try { return JSON.parse(box.value); } catch { return box.value; } }
      return box.value;
    };
    const write = (value) => {
      const between = { texts: "\n", words: " " }[input.kind];
      box.value = typeof value === "string" ? value : between ? value.join(between) : JSON.stringify(value);
    };
    return { elements: [label(form, hint), box], read, write };
  }
  let box;
  if (input.values && input.values.length) {
    box = make("input", { id, list: `${id}-values`, autocomplete: "off" });
  } else {
    box = make("input", { id, type: "text", inputmode: input.kind === "number" ? "decimal" : null, autocomplete: "off" });
  }
  const known = (input.values || []).length ? make("datalist", { id: `${id}-values` }, ...input.values.map((value) => make("option", { value }))) : null;
  const read = () => {
    if (box.value === "") return undefined;
    return input.kind === "number" && Number.isFinite(Number(box.value)) ? Number(box.value) : box.value;
  };
  return { elements: [make("div", {}, label(), box, known)], read, write: (value) => { box.value = value ?? ""; }, cell: true };
}

function submitByKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
}

function imageField(input, id) {
  let bytes = null;
  let shown = "";
  const picture = make("img", { alt: "", hidden: true });
  const box = make("input", { id, class: "file", type: "file", accept: "image/*", onchange: () => box.files[0] && take(box.files[0]) });
  const zone = make("label", { for: id, class: "drop" }, picture, make("span", { "data-say": "drop" }, say("drop")));
  const take = (file) => {
    const reader = new FileReader();
    reader.onload = () => {
      shown = reader.result;
      bytes = shown.slice(shown.indexOf(",") + 1);
      picture.src = shown;
      picture.alt = file.name || input.name;
      picture.hidden = false;
      tell("");
    };
    if (file.type && !file.type.startsWith("image/")) return tell(say("notImage", file.name));
    reader.readAsDataURL(file);
  };
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  const paste = (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file && document.contains(zone)) take(file);
  };
  document.addEventListener("paste", paste);
  return { elements: [box, zone], read: () => bytes ?? undefined, write: () => {}, picture: () => shown, forget: () => document.removeEventListener("paste", paste) };
}

/* ---- the form and its answers ---- */

let fields = {};

function showForm() {
  const place = find("try");
  Object.values(fields).forEach((each) => each.forget && each.forget());
  fields = {};
  place.replaceChildren();
  if (model.chats) return showChat(place);
  const shown = model.inputs.filter((input) => input.required || input.name === model.default);
  const further = model.inputs.filter((input) => !shown.includes(input));
  for (const input of model.inputs) fields[input.name] = field(input);
  const parts = (inputs) => {
    const cells = inputs.filter((input) => fields[input.name].cell).flatMap((input) => fields[input.name].elements);
    const others = inputs.filter((input) => !fields[input.name].cell).flatMap((input) => fields[input.name].elements);
    return [...others, cells.length ? make("div", { class: "fields" }, ...cells) : null].filter(Boolean);
  };
  const explain = make("input", { type: "checkbox", id: "explain" });
  const form = make("form", { class: "card", onsubmit: (event) => { event.preventDefault(); answer(explain.checked); } },
    ...parts(shown.length ? shown : further),
    shown.length && further.length ? make("details", {}, make("summary", {}, say("more")), ...parts(further)) : null,
    make("div", { class: "row" },
      make("button", { class: "main", id: "send" }, say("answer")),
      model.example ? make("button", { type: "button", onclick: fillExample }, say("example")) : null,
      model.explains ? make("label", { class: "line", for: "explain" }, explain, say("explain")) : null));
  place.append(form, make("div", { id: "result", "aria-live": "polite" }));
}

function fillExample() {
  for (const [name, value] of Object.entries(model.example)) if (fields[name] && value != null) fields[name].write(value);
}

async function answer(explain) {
  const row = {};
  for (const [name, each] of Object.entries(fields)) {
    const value = each.read();
    if (value !== undefined) row[name] = value;
  }
  const body = { rows: [row], model: model.name };
  if (explain) body.explain = true;
  if (model.draws) body.draw = true;
  const button = find("send");
  button.disabled = true;
  tell("");
  const began = performance.now();
  try {
    const response = await ask("predict", body);
    const found = await response.json();
    const server = response.headers.get("Server-Timing")?.match(/dur=([\d.]+)/)?.[1];
    const one = { ...found.answers[0], id: found.ids?.[0], truncated: found.truncated?.includes(0) };
    showAnswer(one, row, found, performance.now() - began, server);
  } catch (error) {
    find("result").replaceChildren();
    tell(error instanceof Refused ? error.message : String(error));
  } finally {
    button.disabled = false;
  }
}

function showAnswer(found, row, response, milliseconds, server) {
  const place = find("result");
  if (found.error) return place.replaceChildren(make("p", { class: "card error" }, found.error));
  const took = server === undefined
    ? say("tookOnce", milliseconds.toFixed(0), response.model, response.version)
    : say("took", milliseconds.toFixed(0), Number(server).toFixed(1), response.model, response.version);
  place.replaceChildren(make("section", { class: "card" },
    ...answerParts(found, row),
    found.truncated ? make("p", { class: "soft" }, say("cut")) : null,
    found.explanation ? explanation(found.explanation, row) : null,
    make("p", { class: "soft" }, took),
    model.feedback && found.id != null ? feedback(found) : null));
}

/* By the form of the answer, not by the task: parts of an image, of a text, labels with scores, a number, a text. */
function answerParts(found, row) {
  const value = found.answer;
  const drawing = found.drawing ? make("figure", {}, make("img", { src: `data:image/png;base64,${found.drawing}`, alt: say("answer") })) : null;
  if (Array.isArray(value) && value.length && typeof value[0] === "object") {
    const boxes = "box" in value[0];
    const head = [say("label"), say("score"), ...(boxes ? [] : [say("part")])];
    const cells = (part) => [part.label, part.score == null ? "" : percent(part.score), ...(boxes ? [] : [part.text])];
    const table = make("div", { class: "scroll" }, make("table", {}, make("tr", {}, ...head.map((each) => make("th", {}, each))),
      ...value.map((part) => make("tr", {}, ...cells(part).map((cell) => make("td", {}, String(cell)))))));
    return [drawing, boxes ? null : marked(sourceText(row, found), value.map((part) => ({ ...part, note: part.label }))), table];
  }
  if (value && typeof value === "object" && !Array.isArray(value)) return [drawing, bars(Object.entries(value))];
  if (Array.isArray(value) && value.length && Array.isArray(found.scores) && found.scores.length === value.length) // a ranked list
    return [drawing, make("div", { class: "scroll" }, make("table", {}, make("tr", {}, ...["#", say("part"), say("score")].map((each) => make("th", {}, each))),
      ...value.map((item, rank) => make("tr", {}, ...[rank + 1, item, digits(found.scores[rank])].map((cell) => make("td", {}, String(cell)))))))];
  const parts = [drawing];
  const text = Array.isArray(value) ? value.join(", ") : typeof value === "number" ? digits(value) : value == null || value === "" ? say("nothing") : String(value);
  parts.push(make("p", { class: text.length > 60 ? "said long" : "said", dir: "auto" }, text));
  if (found.scores) parts.push(bars(Object.entries(found.scores).filter(([, score]) => typeof score === "number")));
  if (Number.isInteger(found.start) && sourceText(row, found)) parts.push(marked(sourceText(row, found), [{ start: found.start, end: found.end }]));
  return parts;
}

/* The text that `start` and `end` of an answer are places of: the longest one that holds the answer there. */
function sourceText(row, found) {
  if (Array.isArray(found.tokens)) {
    const text = Object.values(row).find((value) => typeof value === "string");
    return text === undefined ? found.tokens.join(" ") : text;
  }
  const texts = Object.values(row).filter((value) => typeof value === "string");
  return texts.find((text) => typeof found.answer === "string" && [...text].slice(found.start, found.end).join("") === found.answer) || texts[0] || "";
}

/* A text with parts marked. `start` and `end` count characters as Python does, which are code points. */
function marked(text, parts, color) {
  const characters = [...text];
  const pieces = [];
  let at = 0;
  for (const part of [...parts].filter((each) => Number.isInteger(each.start)).sort((one, other) => one.start - other.start)) {
    if (part.start < at) continue;
    pieces.push(characters.slice(at, part.start).join(""));
    const attributes = color ? { color: color(part), title: digits(part.weight) } : {};
    pieces.push(make("mark", attributes, characters.slice(part.start, part.end).join(""), part.note ? make("small", {}, part.note) : null));
    at = part.end;
  }
  pieces.push(characters.slice(at).join(""));
  return make("p", { class: "text", dir: "auto" }, ...pieces);
}

function bars(entries, most = 1, show = percent, kind = () => "") {
  const sorted = entries.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1])).slice(0, 10);
  return make("div", { class: "bars" }, ...sorted.flatMap(([name, value]) => [
    make("span", {}, name),
    make("div", {}, make("div", { class: `bar ${kind(value)}`, "width%": Math.min(100, (100 * Math.abs(value)) / most) })),
    make("span", {}, show(value))]));
}

function explanation(found, row) {
  const parts = found.parts;
  const most = Math.max(...parts.map((part) => Math.abs(part.weight)), 1e-12);
  const color = (part) => `rgba(var(--${part.weight > 0 ? "for" : "against"}), ${(0.65 * Math.abs(part.weight)) / most})`;
  const kind = (weight) => (weight > 0 ? "for" : "against");
  const title = make("h2", {}, found.of == null ? say("whyNumber") : say("why", found.of));
  const legend = make("p", { class: "soft legend" }, make("mark", { color: "rgba(var(--for), .5)" }, say("for")), " ", make("mark", { color: "rgba(var(--against), .5)" }, say("against")));
  const how = found.method ? make("p", { class: "soft" }, say("integrated", parts.length)) : null;
  const looks = found.attention ? attention(found.attention) : null;
  if (parts.some((part) => part.box)) return make("section", {}, title, heat(parts, most), legend, looks);
  const groups = {};
  for (const part of parts.filter((each) => Number.isInteger(each.start))) (groups[part.role || part.column || model.default] ||= []).push(part);
  const texts = Object.entries(groups).map(([name, group]) => marked(typeof row[name] === "string" ? row[name] : sourceText(row, {}), group, color));
  const cells = parts.filter((part) => !Number.isInteger(part.start)).map((part) => [part.value == null ? part.column : `${part.column}: ${part.value}`, part.weight]);
  return make("section", {}, title, ...texts, cells.length ? bars(cells, most, digits, kind) : null, legend, how, looks);
}

/* Where the layers look: of a text a table with a row for each layer, of an image its parts by the last one. */
function attention(found) {
  const caption = make("p", { class: "soft" }, say("attentionIs"));
  const title = make("summary", {}, say("attention"));
  if (found.parts) return make("details", { class: "attention" }, title, heat(found.parts, Math.max(...found.parts.map((part) => part.weight), 1e-12), say("attention")), caption);
  const head = make("tr", {}, make("th", {}, say("layer")), ...found.tokens.map((token) => make("th", {}, make("span", {}, token.text))));
  const rows = Array.from({ length: found.layers }, (_, layer) => {
    const shares = found.tokens.map((token) => token.shares[layer]);
    const most = Math.max(...shares, 1e-12);
    return make("tr", {}, make("th", {}, String(layer + 1)), ...shares.map((share) => make("td", { color: `rgba(var(--against), ${share / most})`, title: percent(share) })));
  });
  const some = found.of > found.tokens.length ? make("p", { class: "soft" }, say("attentionSome", found.tokens.length, found.of)) : null;
  const table = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": say("attention") }, make("table", {}, head, ...rows));
  return make("details", { class: "attention" }, title, table, make("p", { class: "soft" }, say("attentionOf", found.heads)), some, caption);
}

/* The image with its parts colored by their weights. */
function heat(parts, most, name = say("explain")) {
  const canvas = make("canvas", { role: "img", "aria-label": name });
  const image = new Image();
  image.onload = () => {
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    for (const part of parts) {
      pen.fillStyle = part.weight > 0 ? "rgb(220, 30, 30)" : "rgb(30, 60, 220)";
      pen.globalAlpha = (0.6 * Math.abs(part.weight)) / most;
      pen.fillRect(...part.box);
    }
  };
  image.src = Object.values(fields).map((each) => each.picture && each.picture()).find(Boolean);
  return make("figure", {}, canvas);
}

/* The metric of feedback: a share, or of numbers how far answers are off on average. */
function rolling(found) {
  const name = WORDS[language][`metric_${found.metric}`] || found.metric;
  return say("rolling", name, ["mae", "loss"].includes(found.metric) ? digits(found.value) : percent(found.value), found.of);
}

function feedback(found) {
  /* A number as a number, and the labels of a list between commas; else what is typed is refused by the server. */
  const typed = (text) => {
    if (Array.isArray(found.answer)) return text.split(",").map((label) => label.trim()).filter(Boolean);
    return typeof found.answer === "number" && text.trim() && Number.isFinite(Number(text)) ? Number(text) : text;
  };
  const place = make("div", { class: "row" });
  const send = async (label) => {
    try {
      const said = await (await ask("feedback", { model: model.name, id: found.id, label })).json();
      place.replaceChildren(make("span", { role: "status" }, `${say("thanks")} ${rolling(said)}`));
    } catch (error) {
      tell(error instanceof Refused ? error.message : String(error));
    }
  };
  const correct = () => {
    const box = model.labels && model.labels.length <= 50 && typeof found.answer === "string"
      ? make("select", { id: "truth" }, ...model.labels.map((label) => make("option", {}, label)))
      : make("input", { id: "truth", inputmode: typeof found.answer === "number" ? "decimal" : null });
    place.replaceChildren(make("label", { class: "line", for: "truth" }, say("truth"), box),
      make("button", { type: "button", onclick: () => send(typed(box.value)) }, say("send")));
    box.focus();
  };
  place.append(say("right"), make("button", { type: "button", onclick: () => send(found.answer) }, say("yes")), make("button", { type: "button", onclick: correct }, say("no")));
  return place;
}

/* ---- chat ---- */

let turns = [];
let stopper = null;

function showChat(place) {
  turns = [];
  const talk = make("div", { id: "talk", "aria-live": "polite" });
  const system = make("textarea", { id: "system", dir: "auto" });
  const box = make("textarea", { id: "message", dir: "auto", onkeydown: (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  } });
  const stop = make("button", { type: "button", id: "stop", hidden: true, onclick: () => stopper && stopper.abort() }, say("stop"));
  const send = make("button", { class: "main", id: "send" }, say("sendMessage"));
  const form = make("form", { onsubmit: (event) => { event.preventDefault(); if (box.value.trim() && !stopper) { reply(talk, box.value, system.value, stop, send); box.value = ""; } } },
    make("label", { for: "message" }, say("say")), box,
    make("div", { class: "row" }, send, stop, make("button", { type: "button", onclick: () => { if (stopper) stopper.abort(); turns = []; talk.replaceChildren(); } }, say("fresh"))));
  place.append(make("section", { class: "card" }, talk, form, make("details", {}, make("summary", {}, say("system")), make("label", { for: "system" }, say("system")), system)));
}

async function reply(talk, text, system, stop, send) {
  turns.push({ role: "user", content: text });
  const asked = make("div", { class: "turn user" }, text);
  const shown = make("div", { class: "turn", dir: "auto" });
  talk.append(asked, shown);
  talk.scrollTop = talk.scrollHeight;
  stopper = new AbortController();
  stop.hidden = false;
  send.disabled = true;
  tell("");
  let answer = "";
  let ended = false;
  try {
    const messages = system.trim() ? [{ role: "system", content: system }, ...turns] : turns;
    const response = await ask("v1/chat/completions", { model: model.name, messages, stream: true }, stopper.signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines.filter((each) => each.startsWith("data: ") && each !== "data: [DONE]")) {
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Refused(event.error.message || String(event.error));
        const choice = event.choices[0] || {};
        answer += choice.delta?.content || "";
        ended = ended || choice.finish_reason != null;
        shown.textContent = answer;
        talk.scrollTop = talk.scrollHeight;
      }
    }
    if (!ended || !answer) shown.append(" ", make("span", { class: "soft" }, say(ended ? "empty" : "broken")));
  } catch (error) {
    if (error.name === "AbortError") shown.append(" ", make("span", { class: "soft" }, say("stopped")));
    else {
      tell(error instanceof Refused ? error.message : error instanceof TypeError ? say("unreachable") : String(error));
      if (!answer) { asked.remove(); shown.remove(); }
    }
  }
  if (answer) turns.push({ role: "assistant", content: answer });
  else turns.pop(); // the roles of a chat take turns, so a message without an answer is left out
  stopper = null;
  stop.hidden = true;
  send.disabled = false;
}

/* ---- traffic and drift ---- */

async function showTraffic() {
  clearTimeout(timer);
  if (find("traffic").hidden) return;
  try {
    drawTraffic(await (await ask("stats")).json());
    tell("");
  } catch (error) {
    tell(error instanceof Refused ? error.message : String(error));
  }
  timer = setTimeout(showTraffic, 3000);
}

function drawTraffic(found) {
  const tile = (name, value) => make("div", { class: "tile" }, make("span", { class: "soft" }, name), make("b", {}, value));
  const time = (value) => (value == null ? "–" : say("ms", Number(value).toPrecision(3)));
  const parts = [make("div", { class: "tiles" }, tile(say("requests"), digits(found.requests)), tile(say("errors"), digits(found.errors)), tile(say("rejected"), digits(found.rejected)),
    tile(say("p50"), time(found.latency_ms.p50)), tile(say("p99"), time(found.latency_ms.p99)))];
  if (!found.requests) parts.push(make("p", { class: "soft" }, say("noTraffic")));
  else {
    parts.push(make("section", { class: "card" }, make("h2", {}, say("perBucket")), columns(found.history)));
    parts.push(make("section", { class: "card" }, make("h2", {}, say("latency")), curves(found.history)));
  }
  const mine = found.models[model.name];
  if (mine?.labels && Object.keys(mine.labels).length) parts.push(make("section", { class: "card" }, make("h2", {}, say("shares")), bars(Object.entries(mine.labels))));
  if (mine?.accuracy) parts.push(make("section", { class: "card" }, make("h2", {}, say("accuracy")), make("p", {}, rolling(mine.accuracy))));
  if (mine) parts.push(make("section", { class: "card" }, make("h2", {}, say("drift")), drift(mine)));
  find("traffic").replaceChildren(...parts);
}

function drift(mine) {
  if (!mine.drift) return make("p", { class: "soft" }, say("driftNone"));
  if (!mine.drift.ready) return make("p", { class: "soft" }, say("driftWait", mine.answers, mine.drift.window));
  const head = make("tr", {}, make("th", {}, say("statistic")), make("th", {}, say("value")), make("th", {}, say("limit")), make("th", {}, ""));
  return make("div", { class: "scroll" }, make("table", {}, head, ...mine.drift.statistics.map((each) =>
    make("tr", { class: each.alarm ? "error" : null }, make("td", {}, each.name), make("td", {}, digits(each.value)), make("td", {}, digits(each.limit)), make("td", {}, each.alarm ? say("alarm") : "")))));
}

const WIDE = 420, HIGH = 140, LEFT = 40, LOW = 20;

function axes(history, most) {
  const ago = history[0].seconds_ago;
  return [make("line", { class: "grid", x1: LEFT, y1: HIGH - LOW, x2: WIDE, y2: HIGH - LOW }), make("text", { x: 0, y: 12 }, digits(most)), make("text", { x: 0, y: HIGH - LOW }, "0"),
    make("text", { x: LEFT, y: HIGH - 4 }, say("ago", digits(ago))), make("text", { x: WIDE, y: HIGH - 4, "text-anchor": "end" }, say("now"))];
}

function columns(history) {
  const most = Math.max(...history.map((each) => each.requests), 1);
  const wide = (WIDE - LEFT) / history.length;
  const bar = (number, count, base, kind) => {
    const high = (count / most) * (HIGH - LOW - 5);
    return make("rect", { class: kind, x: LEFT + number * wide, y: HIGH - LOW - base - high, width: Math.max(wide - 1, 1), height: high });
  };
  const shapes = history.flatMap((each, number) => {
    const high = ((each.requests - each.errors) / most) * (HIGH - LOW - 5);
    return [bar(number, each.requests - each.errors, 0, "a"), bar(number, each.errors, high, "bad")];
  });
  return make("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": say("perBucket") }, ...axes(history, most), ...shapes);
}

function curves(history) {
  const most = Math.max(...history.map((each) => each.p99_ms ?? 0), 1e-9);
  const line = (key, kind) => make("polyline", { class: kind, points: history.map((each, number) => [each, number]).filter(([each]) => each[key] != null)
    .map(([each, number]) => `${LEFT + ((number + 0.5) * (WIDE - LEFT)) / history.length},${HIGH - LOW - (each[key] / most) * (HIGH - LOW - 5)}`).join(" ") });
  const legend = make("p", { class: "soft legend" }, make("span", { class: "a" }, say("p50")), make("span", { class: "b" }, say("p99")));
  return make("div", {}, make("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": say("latency") }, ...axes(history, Number(most.toPrecision(3))), line("p50_ms", "a"), line("p99_ms", "b")), legend);
}

/* ---- the page itself ---- */

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  find("model").setAttribute("aria-label", say("model"));
}

function choose(name) {
  model = models.find((each) => each.name === name) || models[0];
  find("title").textContent = model.name;
  document.title = `${model.name} · llmft`;
  find("about").textContent = say("about", model.task.replaceAll("_", " "), model.version);
  showForm();
  showTraffic();
}

function show(name) {
  for (const each of ["try", "traffic"]) {
    find(each).hidden = each !== name;
    find(`show-${each}`).setAttribute("aria-pressed", String(each === name));
  }
  showTraffic();
}

async function start() {
  translate();
  try {
    const info = await (await ask("info")).json();
    models = info.models;
    find("key-form").hidden = !info.key || Boolean(apiKey);
    find("model").replaceChildren(...models.map((each) => make("option", {}, each.name)));
    find("model").hidden = models.length < 2;
    if (models.length) choose(model && model.name);
    tell("");
  } catch (error) {
    tell(error instanceof Refused ? error.message : String(error));
  }
}

find("show-try").addEventListener("click", () => show("try"));
find("show-traffic").addEventListener("click", () => show("traffic"));
find("model").addEventListener("change", (event) => choose(event.target.value));
find("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  translate();
  if (model) choose(model.name);
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = find("key").value;
  find("key-form").hidden = true;
  start();
});
start();
