// What the browser remembers. It may be forbidden, full, or hold what an older page wrote: then nothing is remembered.

const PREFIX = "huginn.";

/** Until the browser forgets: settings, colours. */
export const lasting = memory(() => localStorage);
/** As long as the tab: what was typed, the texts. */
export const passing = memory(() => sessionStorage);

function memory(storage) {
  return {
    read(key) {
      try {
        return JSON.parse(storage().getItem(PREFIX + key));
      } catch {
        return null;
      }
    },
    write(key, value) {
      try {
        storage().setItem(PREFIX + key, JSON.stringify(value));
      } catch {
        // Nothing is remembered.
      }
    },
  };
}
