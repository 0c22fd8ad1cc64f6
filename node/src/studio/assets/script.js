// Comfort only: every page works without it.
"use strict";

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    const label = button.textContent;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  });
}

// A choice in a filter applies at once.
for (const form of document.querySelectorAll("form[data-apply]")) {
  for (const select of form.querySelectorAll("select")) {
    select.addEventListener("change", () => form.requestSubmit());
  }
}

// "/" goes to the search field of the page.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  const search = document.querySelector("input[type=search]");
  if (event.key === "/" && !typing && search) {
    event.preventDefault();
    search.focus();
  }
});

// New rows of the audit log on top, at most 500, until paused.
const live = document.querySelector("#live[data-live]");
if (live) {
  live.hidden = false;
  let source = null;
  live.addEventListener("click", () => {
    if (source) {
      source.close();
      source = null;
      live.textContent = "Follow";
      return;
    }
    live.textContent = "Pause";
    source = new EventSource(live.dataset.live);
    const body = document.querySelector("#records");
    source.addEventListener("message", (event) => {
      const rows = document.createElement("tbody");
      rows.innerHTML = event.data; // Escaped by the server, like every page.
      body.prepend(...rows.children);
      while (body.children.length > 500) {
        body.lastElementChild.remove();
      }
    });
    source.addEventListener("ended", () => {
      source.close();
      source = null;
      live.textContent = "Follow";
    });
  });
}

// Progress as the server tells it; the page comes anew when it has ended.
const progress = document.querySelector("[data-progress]");
if (progress) {
  const source = new EventSource(progress.dataset.progress);
  source.addEventListener("message", (event) => {
    progress.innerHTML = event.data; // Escaped by the server, like every page.
  });
  source.addEventListener("ended", () => {
    source.close();
    location.reload();
  });
}
