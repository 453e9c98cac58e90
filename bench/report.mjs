// How figures are shown: a line of a table for each thing measured, or one JSON object with `what`, `per_s`, `step_s`.
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

let json = false;

/** To be called before `show`. */
export function start(asJson) {
  json = asJson;
}

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The peer's seconds over ours, round by round: both were measured in the same minute. */
export function ratios(own, peer) {
  const each = own.map((seconds, i) => peer[i] / seconds);
  return { ratio: median(each), lowest: Math.min(...each), highest: Math.max(...each) };
}

const rounded = (value) =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;

/**
 * @param results { what, peer?, per_s, unit, step_s, ratio?, lowest?, highest?, ... }: `peer` names who it was if not cellcam; the ratio is
 *   cellcam's speed over the peer's
 */
export function show(results = []) {
  for (const result of results) {
    if (json) {
      console.log(JSON.stringify(Object.fromEntries(Object.entries(result).map(([k, v]) => [k, rounded(v)]))));
      continue;
    }
    const { what, peer = 'cellcam', per_s, unit = 'images', step_s, ratio, lowest, highest, note = '' } = result;
    const times =
      ratio === undefined ? '' : `${ratio.toFixed(2)} times as fast (${lowest.toFixed(2)} to ${highest.toFixed(2)})`;
    const rate = `${rounded(per_s)} ${unit}/s`;
    console.log(
      `${what.padEnd(26)} ${peer.padEnd(34)} ${rate.padStart(22)} ${`${rounded(1e3 * step_s)} ms`.padStart(11)}  ${times}${note}`,
    );
  }
}

/** Python peers by name. */
export const peerScript = (name) => path.join(ROOT, 'bench', 'peers', `${name}.py`);
