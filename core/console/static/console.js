// Keeps what changes by itself fresh: asks for the same page again and replaces its live part. Without this script the
// page is the same, as of when it was opened.
"use strict";

const live = document.querySelector("[data-live]");

async function refresh() {
  if (document.hidden || live.contains(document.activeElement) && document.activeElement !== document.body) return;
  const answer = await fetch(location.href, { headers: { "Fleet-Refresh": "1" }, redirect: "manual" });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById(live.id);
  if (fresh !== null) live.replaceChildren(...fresh.childNodes);
}

if (live !== null) {
  const every_ms = Number(live.dataset.live) * 1000;
  const again = () => refresh().catch(() => {}).finally(() => setTimeout(again, every_ms));
  setTimeout(again, every_ms);
}
