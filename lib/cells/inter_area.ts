/** Where OpenCV's INTER_AREA takes an axis of n pixels from when it enlarges it: output d mixes `source[d]` and, by `rest[d]`, the next. */
export interface AreaPositions {
  source: Int32Array;
  /** 0 ≤ rest < 1, float32; 0 at the last pixel. */
  rest: Float32Array;
}

export function areaPositions(n: number, size: number): AreaPositions {
  const factor = size / n;
  const [source, rest] = [new Int32Array(size), new Float32Array(size)];
  for (let d = 0; d < size; d++) {
    const position = Math.floor(d * (1 / factor));
    const offset = Math.fround(d + 1 - (position + 1) * factor);
    const inside = position < n - 1;
    source[d] = inside ? position : n - 1;
    rest[d] = inside && offset > 0 ? offset - Math.floor(offset) : 0;
  }
  return { source, rest };
}

export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}
