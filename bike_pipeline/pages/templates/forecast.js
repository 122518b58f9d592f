"use strict";
const about = JSON.parse(document.getElementById("about").textContent);
const at = (id) => document.getElementById(id);
const whole = (value) => Math.round(value).toLocaleString("en");
const shown = (value) => (about.answers[asked.output]?.share ? value.toFixed(3) : whole(value));
// What is known of the server: its state, and the signature of each version that was asked for.
let state = null;
const asked = { output: "", signatures: new Map() };

function element(tag, attributes = {}, ...children) {
  const drawn = ["svg", "path", "text", "line"].includes(tag);
  const made = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body) {
  let response, text;
  try {
    response = await fetch(about.server + path, body && { method: "POST", body: JSON.stringify(body) });
    text = await response.text();
  } catch {
    throw new Refusal(0, `The server at ${about.server || location.origin} does not answer. Is it running?`);
  }
  let found;
  try {
    // The server writes bare NaN, which no JSON is.
    found = JSON.parse(text.replace(/-?\b(NaN|Infinity)\b/g, "null"));
  } catch {
    throw new Refusal(response.status, `The server answers ${response.status} and something that is no JSON.`);
  }
  if (!response.ok) throw new Refusal(response.status, found.error || `The server answers ${response.status}.`);
  return found;
}

const modelPath = (version) => `/v1/models/${encodeURIComponent(about.model)}` + (version ? `/versions/${version}` : "");

// A server without this page's own paths, such as TF Serving, still tells which versions answer.
async function stateOf() {
  try {
    return await ask("/ui/state.json");
  } catch (refusal) {
    if (!refusal.status) throw refusal;
    const found = (await ask(modelPath())).model_version_status.filter((one) => one.state === "AVAILABLE");
    return { serving: found[0]?.version ?? null, versions: found.map((one) => ({ version: one.version, labels: {} })) };
  }
}

async function refresh() {
  state = await stateOf();
  show();
}

async function signatureOf(version) {
  if (!asked.signatures.has(version)) {
    const found = (await ask(`${modelPath(version)}/metadata`)).metadata.signature_def.signature_def;
    const name = about.signatures.find((one) => one in found);
    if (!name) throw new Refusal(0, `Version ${version} takes no rows of weather and calendar.`);
    const [inputs, outputs] = [found[name].inputs, found[name].outputs].map(Object.keys);
    asked.signatures.set(version, { name, inputs, outputs });
  }
  return asked.signatures.get(version);
}

// Hours as a person gives them, in the units that the model was trained with.
function rowOf(hour) {
  const [year, month, day] = hour.date.split("-").map(Number);
  const weekday = new Date(Date.UTC(year, month - 1, day)).getUTCDay();
  const row = { yr: year - about.first_year, mnth: month, hr: hour.hour, holiday: hour.holiday, weekday,
    workingday: Number(weekday > 0 && weekday < 6 && !hour.holiday), weathersit: hour.weather };
  for (const [name, field] of Object.entries(about.fields)) {
    const value = hour[name] ?? hour[field.stands_in];
    row[name] = (value - field.offset) / field.scale;
  }
  return { ...about.defaults, ...row, day };
}

async function forecast(hours, again = true) {
  if (!state?.serving) await refresh();
  const version = state.serving;
  if (!version) throw new Refusal(0, "No version serves yet.");
  try {
    const { name, inputs, outputs } = await signatureOf(version);
    const rows = hours.map(rowOf);
    const instances = rows.map((row) => Object.fromEntries(inputs.map((input) => [input, row[input]])));
    const found = await ask(`${modelPath(version)}:predict`, { signature_name: name, instances });
    return { version, rows, answers: found.predictions.map((one) => answerOf(one, outputs)) };
  } catch (refusal) {
    // Another version may have taken over since the state was read.
    if (refusal.status !== 404 || !again) throw refusal;
    await refresh();
    return forecast(hours, false);
  }
}

function answerOf(found, names) {
  // A signature of one output leaves out its name.
  const outputs = names.length > 1 ? found : { [names[0]]: found };
  asked.output = Object.keys(about.answers).find((name) => name in outputs);
  const quantiles = Object.keys(outputs).filter((name) => /^p\d+$/.test(name)).sort();
  const [low, high] = [quantiles[0], quantiles.at(-1)];
  const known = low !== high && outputs[low] !== null && outputs[high] !== null;
  const share = known ? Number(high.slice(1)) - Number(low.slice(1)) : 0;
  return { value: outputs[asked.output], share, low: known ? outputs[low] : null, high: known ? outputs[high] : null };
}

function inWords(answer) {
  if (answer.value === null) return "no number: a value of the hour is none";
  return `${shown(answer.value)} ${about.answers[asked.output].unit}`;
}

function complain(place, refusal) {
  if (!(refusal instanceof Refusal)) throw refusal;
  place.replaceChildren(element("p", { class: "bad", role: "alert" }, refusal.message));
}

function show() {
  const one = state.versions.find((version) => version.version === state.serving);
  at("answering").textContent = one ? `Version ${one.version} answers.` : "No version serves yet.";
}

at("hour-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  performance.mark("asked");
  const given = Object.fromEntries(new FormData(event.target));
  const hour = { date: given.date, hour: Number(given.hour), weather: Number(given.weather),
    holiday: Number(at("holiday").checked) };
  for (const name of Object.keys(about.fields)) if (given[name] !== "") hour[name] = Number(given[name]);
  at("hour-why").replaceChildren();
  try {
    const { version, answers } = await forecast([hour]);
    const [answer] = answers;
    const between = answer.share
      ? `${answer.share} of 100 such hours are between ${shown(answer.low)} and ${shown(answer.high)}.`
      : "This version tells no interval.";
    at("hour-answer").replaceChildren(element("p", { class: "answer" }, inWords(answer)),
      element("p", {}, `${between} Answered by version ${version}.`));
    performance.measure("forecast", "asked");
  } catch (refusal) {
    complain(at("hour-answer"), refusal);
  }
});

const now = new Date(Date.now() + 3600e3);
const two = (number) => String(number).padStart(2, "0");
at("date").value = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
at("hour").value = now.getHours();
refresh().catch((refusal) => complain(at("answering"), refusal));
