const { fround } = Math;

/** Puts the k-th smallest of values[from..to] at k, nothing larger before it and nothing smaller after it. */
function select(values: Float32Array, from: number, to: number, k: number): void {
  let seed = 1;
  while (from < to) {
    // A random pivot: smooth maps are full of runs on which fixed places do badly.
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const pivot = values[from + (seed % (to - from + 1))]!;
    let i = from;
    let j = to;
    while (i <= j) {
      while (values[i]! < pivot) i++;
      while (values[j]! > pivot) j--;
      if (i > j) break;
      const kept = values[i]!;
      values[i++] = values[j]!;
      values[j--] = kept;
    }
    if (k <= j) to = j;
    else if (k >= i) from = i;
    else return;
  }
}

/**
 * The linear quantile of values[start] to values[end - 1], rounded in float32 as numpy does.
 * @param values finite; those of the range are reordered
 * @param start less than end
 * @param quantile 0 to 1
 */
export function quantileOf(values: Float32Array, start: number, end: number, quantile: number): number {
  const place = (end - start - 1) * quantile;
  return between(values, start, end, start + Math.floor(place), place - Math.floor(place));
}

/** What lies `share` of the way from the value that sorting would put at `lower` to the next one. */
export function between(values: Float32Array, start: number, end: number, lower: number, share: number): number {
  select(values, start, end - 1, lower);
  const a = values[lower]!;
  let b = lower + 1 < end ? Infinity : a;
  for (let i = lower + 1; i < end; i++) if (values[i]! < b) b = values[i]!;
  const step = fround(b - a);
  return share >= 0.5 ? fround(b - fround(step * fround(1 - share))) : fround(a + fround(step * fround(share)));
}
