// Numbers, money and times as a person reads them, in the browser's locale.

const counts = new Intl.NumberFormat();
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 });
const percents = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const dollars = new Intl.NumberFormat(undefined, { style: "currency", currency: "USD" });
const cents = new Intl.NumberFormat(undefined, {
  style: "currency",
  currency: "USD",
  maximumSignificantDigits: 2,
});
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export const NOTHING = "–";

const missing = (value) => value === null || value === undefined;

export const count = (value) => (missing(value) ? NOTHING : counts.format(value));

/** "1.2M"; the whole number belongs into a title. */
export const short = (value) => (missing(value) ? NOTHING : compact.format(value));

export const percent = (share) => percents.format(share);

/** Dollars; two significant digits below ten cents, since a shard may cost a fraction of a cent. */
export function money(usd) {
  if (missing(usd)) return NOTHING;
  return usd > 0 && usd < 0.1 ? cents.format(usd) : dollars.format(usd);
}

/** "2 h 5 min", "42 s", "3 d 4 h". */
export function duration(seconds) {
  if (missing(seconds)) return NOTHING;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return joined(hours, "h", minutes % 60, "min");
  return joined(Math.floor(hours / 24), "d", hours % 24, "h");
}

function joined(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

/** The exact local time of an ISO text. */
export const moment = (iso) => (iso ? moments.format(new Date(iso)) : undefined);

export const timeOfDay = (date) => clock.format(date);

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
