// What is wrong with the page that is shown, as a list of sentences. Runs inside the page; changes nothing.
const done = arguments[arguments.length - 1];
const problems = [];
const seen = (el) => el.checkVisibility({ visibilityProperty: true, opacityProperty: true });
const name = (el) => {
  const id = el.id ? `#${el.id}` : "";
  const words = (el.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
  return `<${el.tagName.toLowerCase()}${id}> ${JSON.stringify(words)}`;
};

// Structure.
const count = (css) => document.querySelectorAll(css).length;
if (count("h1") !== 1) problems.push(`${count("h1")} elements h1`);
if (count("main") !== 1) problems.push(`${count("main")} elements main`);
if (!document.title.trim() || document.title.startsWith(" ·")) problems.push("no title");
if (!document.documentElement.lang) problems.push("no language");
const ids = [...document.querySelectorAll("[id]")].map((el) => el.id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) problems.push(`two elements have the id ${id}`);

// Names of controls.
for (const el of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
  const labels = [...(el.labels || [])].map((label) => label.textContent.trim()).filter(Boolean);
  if (!labels.length && !el.getAttribute("aria-label")) problems.push(`no label: ${el.name || el.id || el.type}`);
}
for (const el of document.querySelectorAll("a, button, summary")) {
  if (seen(el) && !el.textContent.trim() && !el.getAttribute("aria-label")) problems.push(`no words: ${name(el)}`);
}
for (const el of document.querySelectorAll("img:not([alt])")) problems.push(`no alternative text: ${el.src}`);
for (const el of document.querySelectorAll("th:not([scope])")) problems.push(`a header without scope: ${name(el)}`);

// Contrast (WCAG 2.2, 1.4.3): colours as they are painted, blended down to the ground.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const cache = new Map();
const colour = (text) => {
  if (!cache.has(text)) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    cache.set(text, [r, g, b, a / 255]);
  }
  return cache.get(text);
};
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
const ground = (el) => {
  const layers = [];
  for (let at = el; at; at = at.parentElement) {
    const layer = colour(getComputedStyle(at).backgroundColor);
    if (layer[3] > 0) layers.push(layer);
    if (layer[3] === 1) break;
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return layers.reduceRight((below, layer) => over(layer, below), dark ? [18, 18, 18] : [255, 255, 255]);
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => {
    const part = c / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
const measure = (el, style, words) => {
  const below = ground(el);
  const ratio = contrast(over(colour(style.color), below), below);
  const px = parseFloat(style.fontSize);
  const large = px >= 24 || (px >= 18.66 && parseInt(style.fontWeight, 10) >= 700);
  const needed = large ? 3 : 4.5;
  if (ratio < needed) problems.push(`contrast ${ratio.toFixed(2)} < ${needed}: ${JSON.stringify(words.slice(0, 40))}`);
  lowest = Math.min(lowest, large ? ratio * 1.5 : ratio);
};
let lowest = 21;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const measured = new Set();
while (walker.nextNode()) {
  const el = walker.currentNode.parentElement;
  const words = walker.currentNode.textContent.trim();
  if (!words || measured.has(el) || ["SCRIPT", "STYLE"].includes(el.tagName) || !seen(el)) continue;
  if (el.getBoundingClientRect().width <= 1) continue; // For screen readers alone.
  measured.add(el);
  measure(el, getComputedStyle(el), words);
}
for (const el of document.querySelectorAll("input:not([type=hidden]):not([type=radio]):not([type=checkbox]), textarea")) {
  if (!seen(el)) continue;
  measure(el, getComputedStyle(el), `the content of ${el.name}`);
  if (el.placeholder && !el.value) measure(el, getComputedStyle(el, "::placeholder"), `the placeholder of ${el.name}`);
}
if (!measured.size) problems.push("no text at all");

// Width.
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) {
  const wide = [...document.body.querySelectorAll("*")].filter((el) => {
    const box = el.getBoundingClientRect();
    return seen(el) && box.right > root.clientWidth + 1 && !el.closest(".table, .rail, pre");
  });
  problems.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}: ${wide.slice(0, 3).map(name).join(", ")}`);
}

// Layout shift since the page was opened (Layout Instability API), after two more frames.
let shift = 0;
const observer = new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) shift += entry.value;
});
observer.observe({ type: "layout-shift", buffered: true });
const frame = (then) => requestAnimationFrame(() => requestAnimationFrame(then));
frame(() => {
  for (const entry of observer.takeRecords()) if (!entry.hadRecentInput) shift += entry.value;
  done({ problems, lowest, shift, texts: measured.size, url: location.href });
});
