// The controls that were not reached.
const reached = (el) => window.__focused.has(el)
  || (el.type === "radio" && [...window.__focused].some((it) => it.type === "radio" && it.name === el.name && it.form === el.form));
return window.__controls.filter((el) => !reached(el))
  .map((el) => `${el.tagName.toLowerCase()} ${JSON.stringify((el.textContent.trim() || el.name || el.id).slice(0, 40))}`);
