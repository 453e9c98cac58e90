import { averagePrecision, meanAveragePrecision } from '../../dist/metrics/average_precision';
import { f1Samples } from '../../dist/metrics/f1';
import { withinFieldAuc } from '../../dist/metrics/localisation';
import { fixture, readJson, readTensors } from '../reference_cases';

interface Reference {
  f1_samples: number;
  average_precision_per_class: number[];
  mAP: number;
}

const references = readJson<Record<string, Reference>>(fixture('metrics', 'metrics.json'));
const tensor = readTensors(fixture('metrics', 'metrics.safetensors'));
const names = Object.keys(references);

const table = (rows: number[][]) => ({ data: Float32Array.from(rows.flat()), shape: [rows.length, rows[0]!.length] });
const truth = (rows: number[][]) => ({ data: Uint8Array.from(rows.flat()), shape: [rows.length, rows[0]!.length] });
const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error;
const training = expect.objectContaining({ code: 'ERR_TRAINING' }) as Error;

describe.each([
  ['f1Samples', f1Samples],
  ['meanAveragePrecision', meanAveragePrecision],
])('%s', (_, metric) => {
  it('refuses what does not fit', () => {
    expect(() => metric(undefined as never, truth([[1, 0]]))).toThrow(invalid);
    expect(() => metric(table([[1, 0]]), truth([[1, 0, 0]]))).toThrow(invalid);
    expect(() => metric(table([[1, 0]]), truth([[1, 2]]))).toThrow(invalid);
    expect(() =>
      metric({ data: new Float32Array(0), shape: [0, 2] }, { data: new Uint8Array(0), shape: [0, 2] }),
    ).toThrow(invalid);
  });

  it('names a score that is not a number', () => {
    expect(() => metric(table([[1, 0], [0, NaN]]), truth([[1, 0], [0, 0]]))).toThrow(training); // prettier-ignore
    expect(() => metric(table([[1, 0], [0, NaN]]), truth([[1, 0], [0, 0]]))).toThrow('row 1, class 1'); // prettier-ignore
  });
});

describe.each(names)('reference case %s', (name) => {
  const probabilities = tensor(`${name}.y_prob`);
  const { bytes, shape } = tensor(`${name}.y_true`);
  const targets = { data: bytes, shape };
  const expected = references[name]!;

  it('gives the F1', () => {
    expect(Math.abs(f1Samples(probabilities, targets) - expected.f1_samples)).toBeLessThan(1e-12);
  });

  it('gives the average precisions', () => {
    const { mAP, ap } = meanAveragePrecision(probabilities, targets);
    expect(Math.abs(mAP - expected.mAP)).toBeLessThan(1e-12);
    ap.forEach((value, c) => expect(Math.abs(value - expected.average_precision_per_class[c]!)).toBeLessThan(1e-12));
  });
});

describe('f1Samples', () => {
  it('predicts strictly above the threshold', () => {
    expect(f1Samples(table([[0.5, 0.75]]), truth([[1, 1]]))).toBeCloseTo(2 / 3, 15);
    expect(f1Samples(table([[0.3, 0]]), truth([[1, 0]]), 0.3)).toBe(0);
    expect(() => f1Samples(table([[0.3, 0]]), truth([[1, 0]]), 1.5)).toThrow(invalid);
  });
});

describe('averagePrecision', () => {
  it('refuses what does not fit', () => {
    expect(() => averagePrecision([1, 2], [1])).toThrow(invalid);
    expect(() => averagePrecision([1], [0.5])).toThrow(invalid);
    expect(() => averagePrecision(['1'] as never, [1])).toThrow(invalid);
    expect(() => averagePrecision([1, NaN], [1, 0])).toThrow(training);
  });

  it('takes equal scores as one threshold', () => {
    expect(averagePrecision([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0])).toBe(0.25);
    expect(averagePrecision([0, -0], [1, 0])).toBe(0.5);
    expect(averagePrecision([Infinity, -Infinity], [1, 0])).toBe(1);
    expect(averagePrecision([0.9, 0.8], [0, 0])).toBe(0);
  });
});

/** Every pair, one by one. */
function allPairs(scores: number[], positive: number[], field: number[]): { auc: number; pairs: number } {
  let right = 0;
  let pairs = 0;
  scores.forEach((s, i) => {
    scores.forEach((t, j) => {
      if (positive[i] !== 1 || positive[j] !== 0 || field[i] !== field[j]) return;
      pairs++;
      right += s > t ? 1 : s === t ? 0.5 : 0;
    });
  });
  return { auc: right / pairs, pairs };
}

describe('withinFieldAuc', () => {
  it('refuses what does not fit', () => {
    expect(() => withinFieldAuc([1], [1, 0], [1])).toThrow(invalid);
    expect(() => withinFieldAuc([1], [1], [1, 2])).toThrow(invalid);
    expect(() => withinFieldAuc([1], [2], [1])).toThrow(invalid);
    expect(() => withinFieldAuc([1], [1], [NaN])).toThrow(invalid);
    expect(() => withinFieldAuc([NaN], [1], [1])).toThrow(training);
  });

  it('equals the count over all pairs', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const draw = (n: number, i: number) => Math.floor(Math.abs(Math.sin(seed * 977 + i * 131 + n)) * 1e6) % n;
      const scores = Array.from({ length: 80 }, (_, i) => draw(9, i) / 8);
      const positive = Array.from({ length: 80 }, (_, i) => draw(2, i + 500));
      const field = Array.from({ length: 80 }, (_, i) => draw(6, i + 900));
      expect(withinFieldAuc(scores, positive, field)).toEqual(allPairs(scores, positive, field));
    }
  });

  it('gives image-level scores no credit', () => {
    expect(withinFieldAuc([0.9, 0.9, 0.1, 0.1], [1, 0, 0, 1], [1, 1, 2, 2])).toEqual({ auc: 0.5, pairs: 2 });
  });

  it('says where nothing could be compared', () => {
    expect(withinFieldAuc([0.9, 0.1], [1, 0], [1, 2])).toEqual({ auc: NaN, pairs: 0 });
  });
});
