import { RandomState } from '../../dist/folds/random_state';
import { fixture, readJson } from '../reference_cases';

interface Vectors {
  first_10_raw_uint32: number[];
  random_sample_10: number[];
  choice_mixed: { n: number[]; out: number[] };
  randint_0_1000000_x10: number[];
  shuffle_arange_17_then_choice_4_x10: { shuffle: number[]; choice: number[] };
  permutation_10: number[];
  shuffle_arange_700: number[];
}

const vectors = readJson<Record<string, Vectors>>(fixture('folds', 'randomstate_vectors.json'));
const times = <T>(n: number, draw: () => T): T[] => Array.from({ length: n }, draw);

describe('RandomState', () => {
  it.each([-1, 2 ** 32, 1.5, NaN, '1'])('refuses the seed %p', (seed) => {
    expect(() => new RandomState(seed as number)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error,
    );
  });

  it('refuses impossible draws', () => {
    const random = new RandomState(1);
    expect(() => random.choice(0)).toThrow('Expected an integer');
    expect(() => random.interval(-1)).toThrow('Expected an integer');
    expect(() => random.permutation(-1)).toThrow('Expected an integer');
    expect(() => random.shuffle(null as unknown as number[])).toThrow('Expected an array');
  });

  describe.each(Object.entries(vectors))('seed %s', (seed, expected) => {
    const fresh = () => new RandomState(Number(seed));

    it('draws words and fractions', () => {
      const words = fresh();
      expect(times(10, () => words.uint32())).toEqual(expected.first_10_raw_uint32);
      const fractions = fresh();
      expect(times(10, () => fractions.randomSample())).toEqual(expected.random_sample_10);
    });

    it('draws integers', () => {
      const mixed = fresh();
      expect(expected.choice_mixed.n.map((n) => mixed.choice(n))).toEqual(expected.choice_mixed.out);
      const wide = fresh();
      expect(times(10, () => wide.choice(1000000))).toEqual(expected.randint_0_1000000_x10);
    });

    it('shuffles', () => {
      expect([...fresh().permutation(10)]).toEqual(expected.permutation_10);
      expect([...fresh().permutation(700)]).toEqual(expected.shuffle_arange_700);
      const random = fresh();
      const { shuffle, choice } = expected.shuffle_arange_17_then_choice_4_x10;
      expect([...random.permutation(17)]).toEqual(shuffle);
      expect(times(10, () => random.choice(4))).toEqual(choice);
    });
  });

  it('draws nothing where there is only one outcome', () => {
    const [a, b] = [new RandomState(5), new RandomState(5)];
    expect(a.interval(0)).toBe(0);
    expect(a.uint32()).toBe(b.uint32());
  });

  it('covers the whole 32-bit range', () => {
    const random = new RandomState(0);
    expect(random.interval(2 ** 32 - 1)).toBe(2357136044);
  });
});
