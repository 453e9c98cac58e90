import { createHash } from 'node:crypto';
import { readLabels, selectRows } from '../../dist/data/labels';
import { drawSamples, sampleWeights, sampler, shuffledOrder, SplitMix64 } from '../../dist/training/sample_weights';
import { describeShared, readJson, shared } from '../reference_cases';

const matrix = (rows: number[][]) => ({
  data: Uint8Array.from(rows.flat()),
  shape: [rows.length, rows[0]?.length ?? 0],
});

describe('sampleWeights', () => {
  const labels = matrix([
    [1, 1, 0, 0],
    [1, 0, 0, 0],
    [1, 0, 1, 0],
    [0, 1, 0, 0],
  ]);

  it('refuses what has no weight', () => {
    expect(() => sampleWeights(matrix([[0, 0, 0]]))).toThrow('row 0 has none');
    expect(() => sampleWeights(labels, { lists: [[0]] })).toThrow('4 lists of labels');
    expect(() => sampleWeights(labels, { lists: [[3], [0], [0], [1]] })).toThrow('it names 3');
    expect(() => sampleWeights(labels, { lists: [[4], [0], [0], [1]] })).toThrow('lists[0]');
    expect(() => sampleWeights(labels, { cap: 3 as unknown as null })).toThrow("'auto' or null");
    expect(() => sampleWeights(labels, { lists: [[0, 1], [], [0, 2], [1]] })).toThrow('row 1 has none');
  });

  it('averages class weights and cuts at the third largest', () => {
    // Class weights 1/3, 1/2, 1, infinite: the cap is 1/2.
    expect([...sampleWeights(labels)]).toEqual([(1 / 3 + 1 / 2) / 2, 1 / 3, 1 / 2, 1 / 2]);
    expect([...sampleWeights(labels, { cap: null })]).toEqual([(1 / 3 + 1 / 2) / 2, 1 / 3, (1 / 3 + 1) / 2, 1 / 2]);
  });

  it('counts a label twice that is listed twice', () => {
    const weights = sampleWeights(labels, { lists: [[1, 1, 0], [0], [2, 0], [1]] });
    expect(weights[0]).toBe((1 / 2 + 1 / 2 + 1 / 3) / 3);
  });

  it('cuts nothing with two classes', () => {
    const few = matrix([[1, 0], [0, 1], [0, 1]]); // prettier-ignore
    expect([...sampleWeights(few)]).toEqual([1, 0.5, 0.5]);
  });
});

interface Reference {
  n: number;
  first_20: number[];
  sha256_of_float64_le: string;
}

describeShared('sampleWeights of whole tables', () => {
  const digest = (weights: Float64Array) => createHash('sha256').update(new Uint8Array(weights.buffer)).digest('hex');
  const holdout = () => readLabels(shared('labels', 'holdout.csv'));
  const training = () => {
    const { fold } = readJson<{ fold: number[] }>(shared('stratify', 'holdout_k4_seed2020.json'));
    return selectRows(holdout(), [...fold.keys()].filter((row) => fold[row] !== 1)); // prettier-ignore
  };

  it.each([
    ['holdout_all', holdout],
    ['holdout_seed2020_fold1_train', training],
    ['train2018_all', () => readLabels(shared('labels', 'train_cleaned_2018.csv'))],
  ])('%s', (name, read) => {
    const expected = readJson<Reference>(shared('loss', `sample_weights_${name}.json`));
    const { labels, lists } = read();
    const weights = sampleWeights(labels, { lists });
    expect(weights.length).toBe(expected.n);
    expect([...weights.subarray(0, 20)]).toEqual(expected.first_20);
    expect(digest(weights)).toBe(expected.sha256_of_float64_le);
  });
});

describe('SplitMix64', () => {
  it.each([0n, 1234567n, 2n ** 64n - 1n])('equals 64-bit arithmetic for seed %s', (seed) => {
    const random = new SplitMix64(seed);
    let state = seed;
    for (let i = 0; i < 2000; i++) {
      state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
      let z = BigInt.asUintN(64, (state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n);
      z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
      expect(random.fraction()).toBe(Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53);
    }
  });
});

describe('drawSamples', () => {
  const weights = Float64Array.of(1, 0, 3, 2, 0, 4);

  it.each([
    ['an empty set', new Float64Array(0)],
    ['weights that are all 0', new Float64Array(3)],
    ['a negative weight', Float64Array.of(1, -1)],
    ['an infinite weight', Float64Array.of(1, Infinity)],
    ['NaN', Float64Array.of(1, NaN)],
    ['a plain array', [1, 2] as unknown as Float64Array],
  ])('refuses %s', (_, wrong) => {
    expect(() => drawSamples(wrong, 1, 1)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error);
  });

  it('refuses wrong counts and seeds', () => {
    expect(() => drawSamples(weights, -1, 1)).toThrow('count');
    expect(() => drawSamples(weights, 1, -1)).toThrow('seed');
    expect(() => drawSamples(weights, 1, 2n ** 64n)).toThrow('seed');
    expect(() => drawSamples(weights, 1, 0.5)).toThrow('seed');
  });

  it('draws in proportion to the weights and never a weight of 0', () => {
    const count = 200_000;
    const seen = new Array<number>(6).fill(0);
    for (const row of drawSamples(weights, count, 7)) seen[row]! += 1;
    expect([seen[1], seen[4]]).toEqual([0, 0]);
    // Chi squared with 3 degrees of freedom: 16.3 is passed once in a thousand seeds.
    const expected = [0, 2, 3, 5].map((row) => (count * weights[row]!) / 10);
    const chi = [0, 2, 3, 5].reduce((sum, row, i) => sum + (seen[row]! - expected[i]!) ** 2 / expected[i]!, 0);
    expect(chi).toBeLessThan(16.3);
  });

  it('repeats itself for one seed only', () => {
    expect(drawSamples(weights, 50, 9)).toEqual(drawSamples(weights, 50, 9n));
    expect(drawSamples(weights, 50, 9)).not.toEqual(drawSamples(weights, 50, 10));
  });
});

describe('shuffledOrder', () => {
  it('holds every number once, in an order of its seed', () => {
    const order = shuffledOrder(1000, 3);
    expect([...order].sort((a, b) => a - b)).toEqual([...Array(1000).keys()]);
    expect(order).toEqual(shuffledOrder(1000, 3));
    expect(order).not.toEqual(shuffledOrder(1000, 4));
    expect(shuffledOrder(0, 1)).toHaveLength(0);
    expect(() => shuffledOrder(-1, 1)).toThrow('count');
  });

  it('favours no order', () => {
    const seen = new Map<string, number>();
    for (let seed = 0; seed < 6000; seed++) {
      const key = shuffledOrder(3, seed).join('');
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    expect(seen.size).toBe(6);
    for (const count of seen.values()) expect(Math.abs(count - 1000)).toBeLessThan(120);
  });
});

describe('sampler', () => {
  // A class in 9 rows of 10 and another in 1.
  const data = Uint8Array.from({ length: 20 }, (_, i) => Number(i % 2 === (i >= 18 ? 1 : 0)));
  const lists = Array.from({ length: 10 }, (_, row) => [row === 9 ? 1 : 0]);
  const table = { labels: { data, shape: [10, 2] }, lists };
  const share = (name: 'balanced' | 'sqrt' | 'none') => {
    const draw = sampler(name, table);
    let rare = 0;
    for (let seed = 0n; seed < 2000n; seed++) rare += draw(seed).filter((row) => row === 9).length;
    return rare / 20000;
  };

  it('draws classes evenly, by the root of their rarity, or every row once', () => {
    expect(share('balanced')).toBeCloseTo(0.5, 1);
    expect(share('sqrt')).toBeCloseTo(1 / (1 + 9 / 3), 1);
    expect(share('none')).toBe(0.1);
    expect([...sampler('none', table)(3n)].sort((a, b) => a - b)).toEqual([...Array(10).keys()]);
  });
});
