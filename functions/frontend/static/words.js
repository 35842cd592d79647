// The page's words and numbers, in the page's language. The words come with the page, from strings/<language>.json.

export const strings = JSON.parse(document.getElementById("strings").textContent);

const language = document.documentElement.lang;
const plurals = new Intl.PluralRules(language);
const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export function tokens(number) {
  return fill(strings.tokens[plurals.select(number)] ?? strings.tokens.other, { n: whole.format(number) });
}

export function rate(perSecond) {
  return fill(strings.rate, { n: (perSecond < 10 ? tenths : whole).format(perSecond) });
}

export function firstToken(ms) {
  return fill(strings.first, { n: whole.format(ms) });
}

/** How long somebody has to wait, rounded up. */
export function wait(seconds) {
  return age(seconds < 120 ? seconds : Math.ceil(seconds / 60) * 60);
}

/** A long time in its two largest units; seconds below two minutes. */
export function age(seconds) {
  if (seconds < 120) return fill(strings.seconds, { n: Math.floor(seconds) });
  const minutes = Math.floor(seconds / 60);
  const parts = [["days", Math.floor(minutes / 1440)], ["hours", Math.floor(minutes / 60) % 24], ["minutes", minutes % 60]];
  while (parts.length > 1 && !parts[0][1]) parts.shift();
  return parts.slice(0, 2).filter(([, n], at) => n || !at).map(([unit, n]) => fill(strings[unit], { n })).join(" ");
}

export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** What an error means and what to do. */
export function wordsOf(error) {
  const label = error.field && strings.controls[controlName(error.field)]?.label;
  if (error.code === "invalid_request" && label) return fill(strings.errors.field, { field: label });
  const words = strings.errors[error.code] ?? strings.errors.unknown;
  return error.retryAfterS > 1 ? `${words} ${fill(strings.again_in, { time: wait(error.retryAfterS) })}` : words;
}

/** The control that a field of the request belongs to: `stop.0` is part of `stop`. */
export function controlName(field) {
  return field.split(".")[0];
}
