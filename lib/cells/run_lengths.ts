import { deflateSync, inflateSync } from 'node:zlib';
import { CellcamError, messageOf } from '../errors';
import { invalidArgument, requireInteger, requireNdArray, requireString, type NdArray } from '../options';

// COCO's compressed run lengths, as the submissions of the HPA challenge hold them: pycocotools, maskApi.c.

const FIRST_CHARACTER = 48;
const MORE = 32;

/**
 * Run lengths of a mask: columns from left to right, each from top to bottom; zeros first, perhaps none, then ones, in turn.
 * @param mask (H, W), 0 and anything else
 * @throws CellcamError ERR_INVALID_ARG
 */
export function runLengths(mask: NdArray<Uint8Array>): number[] {
  const { data, shape } = requireNdArray(mask, 'mask', ['Uint8Array'], ['H', 'W']);
  const [height, width] = shape as [number, number];
  const runs: number[] = [];
  let [isSet, length] = [false, 0];
  for (let x = 0; x < width; x++) {
    for (let i = x; i < data.length; i += width) {
      if ((data[i] !== 0) !== isSet) {
        runs.push(length);
        [isSet, length] = [!isSet, 0];
      }
      length++;
    }
  }
  if (height * width > 0) runs.push(length);
  return runs;
}

/** COCO's text of run lengths: from the third on the difference to the last but one, five bits a character, low ones first. */
export function runLengthText(runs: readonly number[]): string {
  const codes: number[] = [];
  runs.forEach((run, i) => {
    let rest = i > 2 ? run - runs[i - 2]! : run;
    for (let more = true; more;) {
      const bits = rest & 31;
      rest >>= 5;
      more = rest !== ((bits & 16) !== 0 ? -1 : 0);
      codes.push(FIRST_CHARACTER + bits + (more ? MORE : 0));
    }
  });
  return codes.map((code) => String.fromCharCode(code)).join('');
}

/** The run lengths of COCO's text. @throws CellcamError ERR_INVALID_ARG */
export function parseRunLengths(text: string): number[] {
  const runs: number[] = [];
  for (let at = 0; at < text.length;) {
    let [value, shift, code] = [0, 0, MORE];
    for (; (code & MORE) !== 0; shift += 5) {
      code = text.charCodeAt(at++) - FIRST_CHARACTER;
      if (!(code >= 0 && code < 64) || shift > 30) throw invalidArgument("COCO's compressed run lengths", 'text', text);
      value |= (code & 31) << shift;
    }
    if ((code & 16) !== 0 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs.at(-2)! : value);
  }
  return runs;
}

/**
 * A mask as a submission holds it: COCO's run lengths, zlib, base64.
 * @param mask (H, W), 0 and anything else
 * @throws CellcamError ERR_INVALID_ARG
 */
export function encodeMask(mask: NdArray<Uint8Array>): string {
  return encodeRuns(runLengths(mask));
}

/** The same from run lengths. */
export function encodeRuns(runs: readonly number[]): string {
  return deflateSync(Buffer.from(runLengthText(runs), 'latin1'), { level: 9 }).toString('base64');
}

function inflated(text: string): string {
  try {
    return inflateSync(Buffer.from(text, 'base64')).toString('latin1');
  } catch (error) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected a mask as base64 of zlib but it cannot be inflated: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/**
 * The mask that `encodeMask` (or any writer of submissions) encoded.
 * @param size [height, width]
 * @returns (H, W), 0 and 1
 * @throws CellcamError ERR_INVALID_ARG, also for a mask of another size
 */
export function decodeMask(text: string, size: [height: number, width: number]): NdArray<Uint8Array> {
  const height = requireInteger(size?.[0], 'size[0]', 1);
  const width = requireInteger(size[1], 'size[1]', 1);
  const runs = parseRunLengths(inflated(requireString(text, 'text')));
  const total = runs.reduce((sum, run) => sum + run, 0);
  if (total !== height * width || runs.some((run) => run < 0)) {
    const message = `Expected run lengths of ${height} × ${width} = ${height * width} pixels but they have ${total}`;
    throw new CellcamError('ERR_INVALID_ARG', message);
  }
  const data = new Uint8Array(height * width);
  let at = 0; // down the columns
  runs.forEach((run, i) => {
    if (i % 2 === 1) for (let k = at; k < at + run; k++) data[(k % height) * width + Math.floor(k / height)] = 1;
    at += run;
  });
  return { data, shape: [height, width] };
}
