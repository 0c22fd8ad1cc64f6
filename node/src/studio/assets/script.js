// Comfort only: every page works without it.
"use strict";

for (const button of document.querySelectorAll("button[data-copy]")) {
  const label = button.textContent;
  let back = 0;
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    } catch {
      button.textContent = "not allowed to copy";
    }
    clearTimeout(back);
    back = setTimeout(() => { button.textContent = label; }, 1200);
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

// New rows of the audit log on top, at most 500, until paused. Nothing is left out: each stream begins after the last record
// that is shown.
const live = document.querySelector("#live[data-live]");
if (live) {
  const told = document.querySelector("#live-told");
  const body = document.querySelector("#records");
  const address = new URL(live.dataset.live, location.href);
  let source = null;
  const stop = (words) => {
    source.close();
    source = null;
    live.textContent = "Follow";
    told.textContent = words;
  };
  const follow = () => {
    live.textContent = "Pause";
    source = new EventSource(address);
    source.addEventListener("open", () => { told.textContent = "Following"; });
    source.addEventListener("message", (event) => {
      address.searchParams.set("after", event.lastEventId);
      const rows = document.createElement("tbody");
      rows.innerHTML = event.data; // Escaped by the server, like every page.
      body.prepend(...rows.children);
      while (body.children.length > 500) {
        body.lastElementChild.remove();
      }
      document.querySelector("#no-records")?.remove();
    });
    source.addEventListener("ended", (event) => stop(`Ended: ${event.data}`));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        stop("These records cannot be followed now. Load the page again to read why.");
      } else {
        told.textContent = "The connection was lost; it is made again.";
      }
    });
  };
  live.hidden = false;
  live.addEventListener("click", () => (source ? stop("Paused") : follow()));
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
