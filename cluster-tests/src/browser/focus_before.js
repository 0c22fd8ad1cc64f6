// Notes what gets the focus from now on, and counts what should.
window.__focused = new Set();
document.addEventListener("focusin", (event) => window.__focused.add(event.target));
if (document.activeElement) document.activeElement.blur();
document.getSelection().collapse(document.body, 0); // Where Tab starts from.
window.scrollTo(0, 0);
window.__controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary")].filter((el) =>
  !el.disabled && el.type !== "hidden" && el.checkVisibility({ visibilityProperty: true }));
return window.__controls.length;
