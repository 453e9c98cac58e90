import { deflateSync, inflateSync } from 'node:zlib';
import sharp from 'sharp';
import { decodeMask, encodeMask, type NdArray } from '../../dist';
import { parseRunLengths, runLengths, runLengthText } from '../../dist/cells/run_lengths';
import { fixture, readJson } from '../reference_cases';
import { uniform } from '../data/splitmix';

const packed = (text: string): string => deflateSync(text).toString('base64');

function mask(rows: string[]): NdArray<Uint8Array> {
  return { data: Uint8Array.from(rows.join('').split(''), Number), shape: [rows.length, rows[0]!.length] };
}

describe('what is refused', () => {
  test.each([
    ['no base64 of zlib', 'abc', [2, 2], /inflated/],
    ['other characters', packed('\x01'), [2, 2], /run lengths/],
    ['a cut text', packed('P'), [2, 2], /run lengths/],
    ['another size', encodeMask(mask(['01', '10'])), [2, 3], /2 × 3 = 6 pixels but they have 4/],
    ['negative runs', packed(runLengthText([5, 1, -2])), [2, 2], /run lengths/],
  ] as const)('%s', (_, text, size, message) => {
    expect(() => decodeMask(text, [...size])).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG', message: expect.stringMatching(message) as string }) as Error,
    );
  });

  test('arguments of other types', () => {
    expect(() => encodeMask({ data: new Uint16Array(4), shape: [2, 2] } as never)).toThrow(/mask/);
    expect(() => encodeMask({ data: new Uint8Array(4), shape: [4] })).toThrow(/mask/);
    expect(() => decodeMask(3 as never, [2, 2])).toThrow(/text/);
    expect(() => decodeMask('x', [0, 2])).toThrow(/size/);
  });
});

test('runs go down the columns and begin with zeros', () => {
  expect(runLengths(mask(['011', '001']))).toEqual([2, 1, 1, 2]);
  expect(runLengths(mask(['10', '10']))).toEqual([0, 2, 2]);
  expect(runLengths(mask(['00']))).toEqual([2]);
  expect(runLengths({ data: Uint8Array.of(0, 7, 255), shape: [3, 1] })).toEqual([1, 2]);
});

test('text and runs are each other, whatever their length', () => {
  const runs = [0, 15, 16, 31, 32, 1023, 1024, 4_000_000, 1, 16_777_216, 3, 2 ** 28, 0];
  expect(parseRunLengths(runLengthText(runs))).toEqual(runs);
});

test('a mask comes back', () => {
  for (const [height, width, share] of [
    [1, 1, 0.5],
    [1, 40, 0.5],
    [37, 1, 0.2],
    [64, 50, 0.01],
    [33, 47, 0.9],
  ] as const) {
    const data = Uint8Array.from(uniform('mask', height, height * width), (v) => Number(v < share));
    expect(decodeMask(encodeMask({ data, shape: [height, width] }), [height, width])).toEqual({
      data,
      shape: [height, width],
    });
  }
});

interface Case {
  name: string;
  height: number;
  width: number;
  runs: number[];
  runs_truncated: boolean;
  counts_string: string;
  base64_zlib: string | null;
}

describe('reference cases', () => {
  const cases = (): Case[] => readJson<Case[]>(fixture('cells', 'rle', 'rle.json'));

  test('runs, text and mask of each', async () => {
    for (const c of cases()) {
      const file = fixture('cells', 'rle', `${c.name}.png`);
      const data = Uint8Array.from(await sharp(file).toColourspace('b-w').raw().toBuffer());
      const given = { data, shape: [c.height, c.width] };
      const runs = runLengths(given);
      expect(c.runs_truncated ? runs.slice(0, 200) : runs).toEqual(c.runs);
      expect(runLengthText(runs)).toBe(c.counts_string);
      expect(inflateSync(Buffer.from(encodeMask(given), 'base64')).toString()).toBe(c.counts_string);
      const decoded = decodeMask(c.base64_zlib ?? encodeMask(given), [c.height, c.width]);
      expect(Buffer.compare(decoded.data, data.map((v) => Number(v !== 0)))).toBe(0); // prettier-ignore
    }
  });
});
