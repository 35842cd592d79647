// Keeps the page's session alive for as long as the page is open. The cookie itself is out of every script's sight.

import { renewSession } from "./api.js";

export function keepSession() {
  const lifetimeS = Number(document.documentElement.dataset.sessionS);
  if (!lifetimeS) return;
  // The server renews what is more than half over: of two calls in one lifetime, one comes in its second half.
  setInterval(() => {
    // Without it the next request says so, and does what can be done.
    renewSession().catch(() => {});
  }, lifetimeS * 450);
}
