"use strict";
// What the other parts build with. Texts of others become text nodes and attributes that hold text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

function section(title, id, ...children) {
  const heading = el("h2", { id: `${id}-title` }, title);
  return el("section", { id, "aria-labelledby": heading.id, tabindex: "-1" }, heading, children);
}

function definitions(rows) {
  return el("dl", { class: "facts" }, rows.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", {}, text))));
}

function table(caption, header, rows, numbers = []) {
  const place = (at) => (numbers.includes(at) ? "number" : null);
  return el("div", { class: "wide", role: "region", "aria-label": `Table: ${caption}`, tabindex: "0" }, el("table", {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, header.map((name, at) => el("th", { scope: "col", class: place(at) }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) =>
      at ? el("td", { class: place(at) }, cell) : el("th", { scope: "row", class: place(at) }, cell)))))));
}

const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits))).replace("-", "−");
const signed = (value) => (value > 0 ? "+" : "") + number(value);
const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const badge = ([text, tone]) => el("span", { class: `badge ${tone}` }, text);

async function unpacked() {
  const packed = atob(JSON.parse(document.getElementById("content").textContent));
  const bytes = new Uint8Array(packed.length);
  for (let at = 0; at < packed.length; at++) bytes[at] = packed.charCodeAt(at);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
