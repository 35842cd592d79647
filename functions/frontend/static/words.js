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

export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** What an error means and what to do. */
export function wordsOf(error) {
  const label = error.field && strings.controls[controlName(error.field)]?.label;
  if (error.code === "invalid_request" && label) return fill(strings.errors.field, { field: label });
  return strings.errors[error.code] ?? strings.errors.unknown;
}

/** The control that a field of the request belongs to: `stop.0` is part of `stop`. */
export function controlName(field) {
  return field.split(".")[0];
}
