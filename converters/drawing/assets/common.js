"use strict";
// What the parts of the page share. Text from files goes into the page as text alone: textContent, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (name, attributes = {}, ...children) => made(document.createElement(name), attributes, children);
const sv = (name, attributes = {}, ...children) => made(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// 1.234e-7 -> "1.2e-7"; what is not finite comes as a word
function error(value) {
  if (typeof value === "string") return value === "Infinity" ? "∞" : value;
  return value === 0 ? "0" : value.toExponential(1);
}
function number(value, digits = 6) {
  if (typeof value === "string") return value === "Infinity" ? "∞" : value === "-Infinity" ? "−∞" : value;
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(digits))).replace("-", "−");
}
// How many times the tolerance: "0.3 %", "12×"
function times(ratio) {
  if (typeof ratio === "string") return error(ratio);
  if (ratio === 0) return "0";
  return ratio <= 1 ? `${Number((100 * ratio).toPrecision(2))} %` : `${Number(ratio.toPrecision(2)).toLocaleString("en")}×`;
}
const shape = (dims) => dims.join("×") || "scalar";

// What is chosen: a set of results, an entry of it, and what the filters leave
const page = {
  set: 0,
  chosen: null,
  failing: false,
  query: "",
  parts: [],
  get entries() { return data.sets[this.set].entries; },
  matches(entry) {
    if (this.failing && (!entry.result || entry.result.ok)) return false;
    const row = data.rows[entry.row];
    const words = [row?.name, row?.type, entry.result?.name, entry.result?.layer, ...(row?.tops ?? [])];
    return !this.query || words.some((word) => word?.toLowerCase().includes(this.query));
  },
  choose(entry, from) { this.chosen = entry; this.tell("chosen", from); },
  // The entries of each layer, the worst first
  byRow() {
    const set = data.sets[this.set];
    if (!set.byRow) {
      set.byRow = data.rows.map(() => []);
      for (const entry of set.entries) set.byRow[entry.row]?.push(entry);
      for (const entries of set.byRow) entries.sort((a, b) => (b.result?.level ?? -1) - (a.result?.level ?? -1));
    }
    return set.byRow;
  },
  ofRow(row) { return this.byRow()[row][0] ?? { row, result: null }; },
  tell(what, from) { for (const part of this.parts) part[what]?.(from); },
};
