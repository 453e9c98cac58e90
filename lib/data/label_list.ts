/** Class names between bars, or between commas unless names hold commas themselves; undefined if one is no class. */
function namedLabels(text: string, classes: readonly string[]): number[] | undefined {
  const separator = text.includes('|') || classes.some((name) => name.includes(',')) ? '|' : ',';
  const labels = text.split(separator).map((name) => classes.indexOf(name.trim()));
  return labels.includes(-1) ? undefined : labels;
}

/** Whether a Label has nothing in it: `` or `[]`. */
export function isEmptyList(text: string): boolean {
  return /^\s*(\[\s*\])?\s*$/.test(text);
}

/**
 * The label indices of `[6, 12]`, `8|5|0`, `6`, or of class names between bars or commas, order and repeats kept;
 * undefined where the text is none of these. A class whose name is a number is read as an index.
 */
export function labelIndices(text: string, classes: readonly string[]): number[] | undefined {
  if (isEmptyList(text)) return [];
  const trimmed = text.trim();
  const inner = /^\[([\s\d,]*)\]$/.exec(trimmed)?.[1];
  const words = inner === undefined ? trimmed.split('|') : inner.split(',');
  const labels = words.map((word) => (/^\s*\d+\s*$/.test(word) ? Number(word) : NaN));
  if (!labels.some(Number.isNaN)) return labels;
  return inner === undefined ? namedLabels(trimmed, classes) : undefined;
}
