// The password goes by script where there is one: CloudFront wants the body's hash, which a form alone cannot send.

import { ApiError, givePassword } from "./api.js";
import { setUpTheme } from "./theme.js";
import { wordsOf } from "./words.js";

const form = document.getElementById("door");
const password = document.getElementById("password");
const button = document.getElementById("enter");
const alertBox = document.getElementById("alert");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  alertBox.hidden = true;
  try {
    await givePassword(new URLSearchParams(new FormData(form)).toString());
    location.replace(location.pathname === "/session" ? form.elements.place.value : location.href);
  } catch (error) {
    alertBox.hidden = false;
    document.getElementById("alert-words").textContent = wordsOf(error instanceof ApiError ? error : new ApiError("unknown"));
    password.setAttribute("aria-invalid", "true");
    password.select();
    button.disabled = false;
  }
});
setUpTheme(document.getElementById("theme"));
