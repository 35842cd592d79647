// Numbers with their units, in the page's language; functions/frontend/languages.py writes them the same way.

import { fill, strings } from "./words.js";

const language = document.documentElement.lang;
const digits = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });
const wholes = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });

const NOTHING = "–";

/** A format that says a dash where there is nothing to say. */
const orNothing = (format) => (number) => (number === null ? NOTHING : format(number));

export const whole = orNothing((number) => wholes.format(number));
/** Three digits that count. */
export const figure = orNothing((number) => (number >= 99.95 ? wholes : digits).format(number));
export const percent = orNothing((share) => fill(strings.percent, { n: wholes.format(share * 100) }));
export const energy = orNothing((joules) => fill(strings.joules, { n: figure(joules) }));
export const megabytes = orNothing((bytes) => fill(strings.megabytes, { n: figure(bytes / 1e6) }));

/** A short time: milliseconds below a second. */
export const duration = orNothing((seconds) =>
  seconds >= 0.9995
    ? fill(strings.seconds, { n: figure(seconds) })
    : fill(strings.milliseconds, { n: figure(seconds * 1000) }),
);

export const ofAll = (n, all) => fill(strings.status_view.of, { n: whole(n), all: whole(all) });
