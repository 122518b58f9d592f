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
    found.sort((one, other) => Number(other.version) - Number(one.version));
    return { serving: found[0]?.version ?? null, versions: found, failed: [], labels: {}, change: null };
  }
}

async function refresh() {
  const found = await stateOf();
  if (JSON.stringify(found) === JSON.stringify(state)) return;
  state = found;
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
    // A column of the training data is there already.
    row[name] = hour.stored?.[name] ?? (value - field.offset) / field.scale;
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
  const { unit, share } = about.answers[asked.output];
  return share ? `A ${unit} of ${shown(answer.value)}` : `${shown(answer.value)} ${unit}`;
}

function complain(place, refusal) {
  if (!(refusal instanceof Refusal)) throw refusal;
  place.replaceChildren(element("p", { class: "bad", role: "alert" }, refusal.message));
}

const utc = (moment) => `${moment.slice(0, 19).replace("T", " ")} UTC`;

function labelsOf(version) {
  const own = Object.entries(state.labels).filter(([, label]) => label.version === version);
  return own.map(([name, { since }]) => (since ? `${name} since ${utc(since)}` : name)).join(", ");
}

function show() {
  const labels = labelsOf(state.serving);
  at("answering").className = state.serving ? "note" : "bad";
  at("answering").textContent = state.serving
    ? `Version ${state.serving} answers${labels && `, ${labels}`}.` : "No version serves yet.";
  at("release").replaceChildren(...releaseOf(state));
}

function releaseOf({ serving, versions, failed, labels, change }) {
  const shares = Object.entries(labels).filter(([, { percent }]) => percent !== null);
  const taken = shares.reduce((sum, [name, { percent }]) => sum + (name === "shadow" ? 0 : percent), 0);
  const sharesOf = (version) => {
    const own = shares.filter(([, label]) => label.version === version)
      .map(([name, { percent }]) => (name === "shadow" ? `a copy of ${percent} %` : `${percent} %`));
    return [...(version === serving ? [`${100 - taken} %`] : []), ...own].join(", ") || "those that name it";
  };
  const told = shares.map(([name, { version, percent }]) => `${name}, version ${version}, has ${percent} % of the requests`);
  const found = [element("p", {}, told.length ? `A release is in progress: ${told.join("; ")}.` : "No release is in progress.")];
  const rows = versions.map(({ version }) => [version, labelsOf(version) || "none", sharesOf(version)]);
  if (rows.length) found.push(tableOf("Versions that answer", ["version", "label", "requests"], rows, "stack"));
  if (change) {
    const { action, label, to_version: version, share, reason } = change;
    const what = [action, label, version && `version ${version}`, typeof share === "number" && `${share} %`].filter(Boolean);
    found.push(element("p", {}, `Last change, ${utc(change.at)}: ${what.join(", ")}${reason && ` (${reason})`}.`));
  }
  for (const { version, not_verified: reasons } of versions) {
    for (const reason of reasons ?? []) {
      found.push(element("p", { class: "note" }, `Version ${version} is not verified: ${reason}.`));
    }
  }
  for (const one of failed) found.push(element("p", { class: "bad" }, `Version ${one.version} cannot be served: ${one.error}`));
  return found;
}

function tableOf(caption, names, rows, kind = "") {
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, place) =>
    element(place ? "td" : "th", place ? { "data-label": names[place] } : { scope: "row" }, cell))));
  return element("table", { class: kind }, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body));
}

// Whole numbers that add up as what they stand for does: each is the way from one rounded sum to the next.
function steps(base, parts) {
  const round = about.answers[asked.output].share ? (value) => Math.round(value * 1000) / 1000 : Math.round;
  let sum = base;
  return parts.map((part) => {
    const before = round(sum);
    sum += part.value;
    return { words: part.words, value: round(sum) - before };
  });
}

async function explain(version, row, isNewest) {
  const place = at("hour-why");
  try {
    const why = await ask(`/ui/explanation.json?${new URLSearchParams({ version, ...row })}`);
    if (!isNewest()) return;
    const parts = steps(why.base, why.parts);
    const largest = Math.max(...parts.map((part) => Math.abs(part.value)), 1e-9);
    const signed = (value) => (value < 0 ? `−${shown(-value)}` : `+${shown(value)}`);
    const rows = parts.map(({ words, value }) => {
      const bar = element("span", { class: value < 0 ? "bar less" : "bar more", "aria-hidden": "true" });
      bar.style.setProperty("--share", Math.abs(value) / largest);
      return [words, element("span", {}, bar, signed(value))];
    });
    const first = parts.slice(0, 3).map(({ words, value }) => `${signed(value)} ${words}`).join("; ");
    place.replaceChildren(element("h3", {}, "Why"),
      element("p", {}, `An ordinary hour has ${shown(why.base)}. What moves this one most: ${first}.`),
      tableOf(`From the ${shown(why.base)} of an ordinary hour to ${shown(why.answer)}`, ["asked", "adds"], rows, "bars"));
    performance.measure("explanation", "asked");
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    place.replaceChildren(element("p", { class: "note" }, `This server tells no reason: ${refusal.message}`));
  }
}

// Whoever asks again before an answer is there gets the newer one alone.
const turns = { hour: 0, table: 0 };
function turnOf(form) {
  const turn = ++turns[form];
  return () => turn === turns[form];
}

at("hour-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const isNewest = turnOf("hour");
  performance.mark("asked");
  const given = Object.fromEntries(new FormData(event.target));
  const hour = { date: given.date, hour: Number(given.hour), weather: Number(given.weather),
    holiday: Number(at("holiday").checked) };
  for (const name of Object.keys(about.fields)) if (given[name] !== "") hour[name] = Number(given[name]);
  at("hour-why").replaceChildren();
  try {
    const { version, rows, answers } = await forecast([hour]);
    if (!isNewest()) return;
    const [answer] = answers;
    const between = answer.share
      ? `${answer.share} of 100 such hours are between ${shown(answer.low)} and ${shown(answer.high)}.`
      : "This version tells no interval.";
    at("hour-answer").replaceChildren(element("p", { class: "answer" }, inWords(answer)),
      element("p", {}, `${between} Answered by version ${version}.`));
    performance.measure("forecast", "asked");
    await explain(version, rows[0], isNewest);
  } catch (refusal) {
    complain(at("hour-answer"), refusal);
  }
});

// How a table may call what an hour consists of, beside the label of each field and the columns of the training data.
const NAMES = { date: ["date", "dteday"], hour: ["hour", "hr"], time: ["time", "datetime", "timestamp"],
  weather: ["weather", "weathersit"], holiday: ["holiday"], wind: ["wind speed"] };
const MOST_LINES = 31 * 24;
const YES = { "": 0, 0: 0, no: 0, false: 0, 1: 1, yes: 1, true: 1 };

function headerOf(names) {
  const found = {};
  for (const [place, name] of names.entries()) {
    const plain = name.toLowerCase().replace(/[([].*/, "").replaceAll("_", " ").trim();
    for (const [what, words] of Object.entries(NAMES)) if (words.includes(plain)) found[what] = place;
    for (const [field, { label }] of Object.entries(about.fields)) {
      if (plain === label.toLowerCase()) found[field] = place;
      if (plain === field) found[`stored ${field}`] = place;
    }
  }
  if ("wind" in found) found.windspeed = found.wind;
  return found;
}

// Returns the hours of a table, in the order of time, and what is wrong with the other lines.
function parse(text) {
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/).map((content, place) => ({ content, number: place + 1 }));
  const [first, ...others] = lines.filter(({ content }) => content.trim());
  if (!others.length) throw new Refusal(0, "There is no line below a header. Choose a file, or paste a table.");
  if (others.length > MOST_LINES) {
    throw new Refusal(0, `There are ${others.length} lines, and at most ${MOST_LINES}, a month, are shown. Leave some out.`);
  }
  const separator = ["\t", ";", ","].find((one) => first.content.includes(one)) ?? ",";
  const cellsOf = (line) => line.content.split(separator).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
  const names = cellsOf(first), places = headerOf(names);
  const needed = Object.entries(about.fields).filter(([name, field]) => !field.stands_in && !(`stored ${name}` in places));
  const missing = [...("time" in places ? [] : ["date", "hour"]), "weather"].filter((name) => !(name in places));
  missing.push(...needed.filter(([name]) => !(name in places)).map(([, field]) => field.label.toLowerCase()));
  if (missing.length) throw new Refusal(0, `Line ${first.number}: the header does not name ${missing.join(", ")}.`);
  const hours = new Map(), problems = [];
  for (const line of others) {
    const cells = cellsOf(line);
    const reasons = [];
    if (cells.length !== names.length) reasons.push(`${cells.length} fields, and the header has ${names.length}`);
    else {
      const hour = hourOf(places, cells, separator !== ",", reasons);
      const other = hours.get(hour.moment);
      if (!reasons.length && other) reasons.push(`the same hour as line ${other.line}`);
      if (!reasons.length) hours.set(hour.moment, { ...hour, line: line.number });
    }
    if (reasons.length) problems.push(`Line ${line.number}: ${reasons.join("; ")}`);
  }
  return { hours: [...hours.values()].sort((one, other) => one.moment - other.moment), problems };
}

function hourOf(places, cells, commas, reasons) {
  const numberOf = (text) => (text === "" ? NaN : Number(commas ? text.replace(",", ".") : text));
  let [date, clock] = [cells[places.date], cells[places.hour]];
  if ("time" in places) [date, clock] = cells[places.time].split(/[T ]/);
  const whole = /^(\d{1,2})(:00){0,2}$/.exec(clock ?? "");
  const hour = whole ? Number(whole[1]) : NaN;
  const day = /^\d{4}-\d\d-\d\d$/.test(date) ? Date.parse(`${date}T00:00Z`) : NaN;
  const year = Number(date.slice(0, 4)) - about.first_year;
  if (Number.isNaN(day) || new Date(day).toISOString().slice(0, 10) !== date) reasons.push(`date: "${date}" is none, as 2012-06-15 is`);
  else if (year < 0 || year > about.most_years) reasons.push(`date: ${date} is not from ${about.first_year} on`);
  if (!(hour <= 23)) reasons.push(`hour: "${clock ?? ""}" is no full hour from 0 to 23`);
  const sky = cells[places.weather].toLowerCase();
  const weather = Number(Object.keys(about.weather).find((code) => code === sky || about.weather[code] === sky));
  if (!weather) {
    reasons.push(`weather: "${cells[places.weather]}" is none of ${Object.entries(about.weather).map((one) => one.join(" ")).join(", ")}`);
  }
  const holiday = "holiday" in places ? YES[cells[places.holiday].toLowerCase()] : 0;
  if (holiday === undefined) reasons.push(`holiday: "${cells[places.holiday]}" is neither yes nor no`);
  const found = { date, hour, weather, holiday, moment: day / 3600e3 + hour, stored: {} };
  for (const [name, field] of Object.entries(about.fields)) {
    const stored = !(name in places) && `stored ${name}` in places;
    const place = places[stored ? `stored ${name}` : name];
    if (place === undefined || (cells[place] === "" && field.stands_in)) continue;
    const value = numberOf(cells[place]), [low, high, unit] = stored ? [0, 1, ""] : [field.low, field.high, ` ${field.unit}`];
    const called = stored ? name : field.label.toLowerCase();
    if (Number.isNaN(value)) reasons.push(`${called}: "${cells[place]}" is no number`);
    else if (value < low || value > high) reasons.push(`${called}: ${value}${unit} is not from ${low} to ${high}`);
    if (stored) found.stored[name] = value;
    else found[name] = value;
  }
  // What the temperature stands in for is stored as the temperature is.
  for (const [name, field] of Object.entries(about.fields)) {
    const other = about.fields[field.stands_in];
    if (other && !(name in found) && !(name in found.stored) && field.stands_in in found.stored) {
      found[field.stands_in] = found.stored[field.stands_in] * other.scale + other.offset;
    }
  }
  return found;
}

const named = (moment, style) => new Date(moment * 3600e3).toLocaleString("en-GB", { timeZone: "UTC", ...style });
const inFull = (moment) => named(moment, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

// A round number such as 200 or 0.05 that leaves three or four lines below the largest value.
function spacing(largest) {
  const rough = largest / 4, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].find((one) => one * power >= rough) * power;
}

function chartOf(hours, answers, width) {
  const height = 260, left = 48, bottom = 34, top = 10, right = 8;
  const begin = hours[0].moment, end = Math.max(hours.at(-1).moment, begin + 1);
  const largest = Math.max(...answers.map((one) => one.high ?? one.value ?? 0), 1e-3);
  const x = (moment) => left + ((moment - begin) / (end - begin)) * (width - left - right);
  const y = (value) => height - bottom - (value / largest) * (height - bottom - top);
  const drawn = [];
  for (let value = 0; value <= largest; value += spacing(largest)) {
    drawn.push(element("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      element("text", { class: "up", x: left - 6, y: y(value) + 4 }, shown(value)));
  }
  const every = [6, 12, 24, 48, 168].find((one) => ((end - begin) / one) * 64 <= width - left) ?? 336;
  for (let moment = Math.ceil(begin / every) * every; moment <= end; moment += every) {
    drawn.push(element("line", { class: "grid", x1: x(moment), x2: x(moment), y1: top, y2: height - bottom }),
      element("text", { x: Math.min(x(moment), width - 20), y: height - 18 }, named(moment, { hour: "2-digit", minute: "2-digit" })),
      element("text", { x: Math.min(x(moment), width - 20), y: height - 4 }, named(moment, { weekday: "short", day: "numeric" })));
  }
  // Hours that are missing leave a gap.
  const runs = [];
  hours.forEach((hour, place) => {
    if (answers[place].value === null) return;
    if (runs.at(-1)?.at(-1).moment !== hour.moment - 1) runs.push([]);
    runs.at(-1).push({ moment: hour.moment, ...answers[place] });
  });
  for (const run of runs) {
    const ends = (one) => [one.moment - (run.length === 1) * 0.3, one.moment + (run.length === 1) * 0.3];
    const along = (value) => run.flatMap((one) => (run.length === 1 ? ends(one) : [one.moment]).map((moment) => `${x(moment)},${y(value(one))}`));
    if (run.every((one) => one.share)) {
      const band = [...along((one) => one.high), ...along((one) => one.low).reverse()];
      drawn.push(element("path", { class: "band", d: `M${band.join("L")}Z` }));
    }
    drawn.push(element("path", { class: "line", d: `M${along((one) => one.value).join("L")}` }));
  }
  const extremes = hours.map((hour, place) => [answers[place].value, hour.moment]).filter(([value]) => value !== null);
  extremes.sort(([one], [other]) => one - other);
  const words = extremes.length
    ? `Forecast of ${hours.length} hours: least ${shown(extremes[0][0])} at ${inFull(extremes[0][1])}, most ` +
      `${shown(extremes.at(-1)[0])} at ${inFull(extremes.at(-1)[1])}. The table below has every hour.` : "No hour has a forecast.";
  return element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words }, ...drawn);
}

let drawing = null;
const draw = () => {
  if (drawing) at("chart").replaceChildren(chartOf(...drawing, Math.max(at("chart").clientWidth, 200)));
};
new ResizeObserver(draw).observe(at("chart"));

at("table-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const isNewest = turnOf("table");
  performance.mark("asked for many");
  drawing = null;
  for (const id of ["table-problems", "chart", "table-rows"]) at(id).replaceChildren();
  try {
    const { hours, problems } = parse(at("table").value);
    if (problems.length) {
      at("table-problems").replaceChildren(element("p", { class: "bad" }, `Left out, ${problems.length} of the lines:`),
        element("ul", {}, ...problems.map((problem) => element("li", {}, problem))));
    }
    if (!hours.length) throw new Refusal(0, "No line can be forecast; the reasons stand below.");
    const { version, answers } = await forecast(hours);
    if (!isNewest()) return;
    const [{ share }] = answers;
    const left = problems.length ? ` ${problems.length} of the lines are left out; the reasons stand below.` : "";
    at("table-answer").replaceChildren(element("p", {}, `${hours.length} ${hours.length > 1 ? "hours" : "hour"}, answered by version ${version}.${left}`));
    drawing = [hours, answers];
    draw();
    const unit = about.answers[asked.output].unit;
    const rows = hours.map((hour, place) => [inFull(hour.moment), answers[place].value === null ? "none" : shown(answers[place].value),
      answers[place].share ? `${shown(answers[place].low)} to ${shown(answers[place].high)}` : "not known"]);
    at("table-rows").replaceChildren(tableOf("Forecast, hour by hour", ["hour", unit, share ? `${share} of 100 are between` : "interval"], rows));
    performance.measure("many hours", "asked for many");
  } catch (refusal) {
    complain(at("table-answer"), refusal);
  }
});

at("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  at("table").value = await file.text();
  at("table-form").requestSubmit();
});

at("example").addEventListener("click", () => {
  const begin = Date.parse(`${at("date").value || "2012-06-15"}T00:00Z`) / 3600e3;
  const lines = Array.from({ length: 48 }, (_, hour) => {
    const warm = Math.sin(((hour % 24) - 9) / 24 * 2 * Math.PI);
    const date = new Date((begin + hour) * 3600e3).toISOString().slice(0, 10);
    const sky = hour < 30 ? "clear" : hour < 38 ? "light rain or snow" : "mist";
    return [date, hour % 24, sky, (20 + 6 * warm).toFixed(1), (65 - 15 * warm).toFixed(0), (12 + 4 * warm).toFixed(0), "no"].join(",");
  });
  at("table").value = ["date,hour,weather,temperature,humidity,wind,holiday", ...lines].join("\n");
  at("table-form").requestSubmit();
});

const now = new Date(Date.now() + 3600e3);
const two = (number) => String(number).padStart(2, "0");
at("date").value = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
at("hour").value = now.getHours();
const look = () => refresh().catch((refusal) => {
  state = null;
  complain(at("answering"), refusal);
});
look();
// A release goes on while somebody reads.
setInterval(() => document.hidden || look(), 10e3);
