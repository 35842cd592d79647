// Light or dark: the system's choice until the reader makes one.

import { lasting } from "./storage.js";
import { strings } from "./words.js";

export function setUpTheme(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
  const show = () => {
    const offer = strings.theme[current() === "dark" ? "light" : "dark"];
    button.title = offer;
    button.setAttribute("aria-label", offer);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    lasting.write("theme", root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}
