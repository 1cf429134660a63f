"use strict";
// Sends an image to the service, and draws what comes back over it.

const at = (id) => document.getElementById(id);
const LINE = 2, SEEN = 0.45; // width of a box in pixels of the screen; how much of a mask hides the image
let sending = 0; // the number of the last image: answers to earlier ones come too late
let url = ""; // the image that is shown

function headers() {
  const token = at("token").value;
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function asked(path, options = {}) {
  const reply = await fetch(path, { ...options, headers: headers() });
  const found = await reply.json();
  at("locked").hidden = reply.status !== 401;
  if (!reply.ok) throw new Error([found.error, found.hint].filter(Boolean).join(": "));
  return found;
}

async function list() {
  try {
    const { models } = await asked("/v1/models");
    at("model").replaceChildren(...models.map((each) => new Option(each.name, each.name)));
    const predicts = models.map((each) => `${each.name}: ${each.ready ? said(each.predicts) : "is being loaded"}`);
    at("about").textContent = predicts.join("; ");
    tell("");
  } catch (error) {
    at("about").textContent = "";
    tell(error.message);
  }
}

function said(predicts) {
  return typeof predicts === "string" ? predicts : Object.entries(predicts).map((each) => each.join(" ")).join(", ");
}

function tell(text) {
  at("status").textContent = text;
}

async function send(file) {
  const number = ++sending;
  tell("The image is being sent.");
  try {
    const path = `/v1/models/${encodeURIComponent(at("model").value)}/predict`;
    const found = await asked(path, { method: "POST", body: file });
    if (number === sending) await show(file, found);
  } catch (error) {
    if (number === sending) {
      at("answer").hidden = true;
      tell(error.message);
    }
  }
}

async function show(file, found) {
  URL.revokeObjectURL(url);
  url = URL.createObjectURL(file);
  const image = at("shown");
  image.src = url;
  const canSee = await image.decode().then(() => true, () => false); // not every format that the service reads
  const prediction = found.predictions[0];
  const heads = prediction.heads ? Object.entries(prediction.heads) : [["", prediction]];
  const rows = heads.flatMap(([name, head]) => rowsOf(head).map((row) => ({ ...row, head: name })));
  at("picture").hidden = !canSee;
  at("answer").hidden = false;
  if (canSee) draw(rows, image);
  at("caption").textContent = `${found.model}, version ${found.version} (${found.role})`;
  at("rows").replaceChildren(...rows.map(rowOf));
  tell(rows.length ? `Found: ${rows.slice(0, 5).map((row) => `${row.label} ${row.value}`).join(", ")}` : "Found nothing.");
}

// What a head says, as rows: label, value, and for some a box and a mask.
function rowsOf(head) {
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  if (head.boxes) return head.boxes.map((each) => ({ ...each, value: percent(each.score) }));
  if (head.masks) return head.masks.map((each) => ({ ...each, value: `${percent(each.share)} of the image` }));
  if (head.values) return head.values.map((each) => ({ label: head.unit, value: each.toPrecision(4) }));
  return (head.top || head.labels).map((each) => ({ label: each.label, value: percent(each.probability) }));
}

function rowOf(row) {
  const line = document.createElement("tr"), what = document.createElement("td"), value = document.createElement("td");
  if (row.box || row.mask) {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.style.background = colour(row.label);
    what.append(mark);
  }
  what.append([row.head, row.label].filter(Boolean).join(": "));
  value.textContent = row.value;
  line.append(what, value);
  return line;
}

function colour(label) {
  let hash = 7;
  for (const letter of label) hash = (31 * hash + letter.codePointAt(0)) % 360;
  return `hsl(${(hash * 137) % 360} 85% 50%)`;
}

function draw(rows, image) {
  const canvas = at("drawn"), pen = canvas.getContext("2d");
  const least = 1024 / Math.max(image.naturalWidth, image.naturalHeight); // lines in a small image are thin, too
  const scale = Math.max(1, least);
  canvas.width = Math.round(image.naturalWidth * scale);
  canvas.height = Math.round(image.naturalHeight * scale);
  const thick = LINE * Math.max(1, canvas.width / (image.clientWidth || canvas.width));
  for (const row of [...rows].reverse().filter((each) => each.mask)) paint(pen, row, canvas);
  for (const row of rows.filter((each) => each.box)) {
    const [left, top, right, bottom] = row.box.map((edge) => edge * scale);
    pen.strokeStyle = pen.fillStyle = colour(row.label);
    pen.lineWidth = thick;
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.font = `${7 * thick}px system-ui, sans-serif`;
    pen.fillText(`${row.label} ${row.value}`, left + thick, Math.max(top - 2 * thick, 7 * thick));
  }
}

// COCO's run-length encoding: runs of pixels without and with the mask in turn, column by column.
function paint(pen, row, canvas) {
  const [height, width] = row.mask.size;
  const mask = new OffscreenCanvas(width, height), inner = mask.getContext("2d");
  inner.fillStyle = colour(row.label);
  let start = 0;
  runs(row.mask.counts).forEach((count, number) => {
    const end = start + count;
    for (let from = start; number % 2 && from < end; ) {
      const column = Math.floor(from / height), line = from % height;
      const length = Math.min(height - line, end - from);
      inner.fillRect(column, line, 1, length);
      from += length;
    }
    start = end;
  });
  pen.globalAlpha = SEEN;
  pen.imageSmoothingEnabled = false;
  pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 1;
}

// Each run is written in characters of five bits, from the third on as the difference to the one before the last.
function runs(text) {
  const found = [];
  for (let place = 0; place < text.length; ) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(place++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    found.push(found.length > 2 ? value + found[found.length - 2] : value);
  }
  return found;
}

at("file").addEventListener("change", () => at("file").files.length && send(at("file").files[0]));
at("form").addEventListener("submit", (event) => { event.preventDefault(); list(); });
at("model").addEventListener("change", () => at("file").files.length && send(at("file").files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files.length && send(event.clipboardData.files[0]));
list();
