import { augmentWith, sampleAugmentation, type AugmentationStep, type GivenStep, type NdArray } from '../../dist';
import { addon } from '../../dist/native';
import { describeShared, fixture, readJson, readTensors, shared } from '../reference_cases';

interface Case {
  name: string;
  op: string;
  input: string;
  params: Record<string, unknown>;
  out?: string;
  out_float?: string;
  tensors?: Record<string, string>;
}

type Augment = typeof augmentWith;

/** The operations of other devices, on the CPU. */
const byTensors: Augment = async (images, steps, o) => {
  const own = addon();
  const original = own.augmentWith.bind(own);
  own.augmentWith = (i, s, device) => original(i, s, device, true);
  try {
    return await augmentWith(images, steps, o);
  } finally {
    own.augmentWith = original;
  }
};

function distances(got: Uint8Array, want: Uint8Array): { mean: number; p99: number; max: number } {
  expect(got).toHaveLength(want.length);
  const apart = Array.from(got, (v, i) => Math.abs(v - want[i]!)).sort((a, b) => a - b);
  const mean = apart.reduce((sum, d) => sum + d, 0) / apart.length;
  return { mean, p99: apart[Math.floor(apart.length * 0.99)]!, max: apart.at(-1)! };
}

function noiseOf(
  { op, tensors = {} }: Case,
  tensor: ReturnType<typeof readTensors>,
): NdArray<Float32Array> | undefined {
  if (op === 'ElasticTransform') {
    const [dx, dy] = [tensor(tensors['dx']!), tensor(tensors['dy']!)];
    return { data: Float32Array.from([...dx.data, ...dy.data]), shape: [2, ...dx.shape] };
  }
  return tensors['noise'] === undefined ? undefined : tensor(tensors['noise']);
}

function checkCases(folder: (...parts: string[]) => string): void {
  const { cases } = readJson<{ cases: Case[] }>(folder('cases.json'));
  const tensor = readTensors(folder('cases.safetensors'));
  for (const [way, augment] of Object.entries({ 'on the CPU': augmentWith, 'by tensors': byTensors })) {
    test.each(cases.map((c) => [c.name, c] as const))(`%s ${way}`, async (_name, c) => {
      const { bytes, shape } = tensor(c.input);
      const step: GivenStep = { op: c.op, params: c.params, noise: noiseOf(c, tensor) };
      const { data } = await augment({ data: bytes, shape: [1, ...shape] }, [step]);
      const exact = c.out_float === undefined;
      if (c.out) {
        const { mean, p99, max } = distances(data, tensor(c.out).bytes);
        if (exact) expect(max).toBe(0);
        expect([mean <= 0.3, p99 <= 2, max <= 8]).toEqual([true, true, true]);
      }
      if (c.out_float) {
        const { mean, max } = distances(data, tensor(c.out_float).bytes);
        expect([mean <= 0.01, max <= 1]).toEqual([true, true]);
      }
    });
  }
}

const IMAGE: NdArray<Uint8Array> = {
  data: Uint8Array.from({ length: 40 * 40 * 4 }, (_, i) => (i * 7919) % 256),
  shape: [1, 40, 40, 4],
};

describe('wrong inputs', () => {
  test.each<[string, unknown, RegExp]>([
    ['an unknown operation', [{ op: 'Sharpen', params: {} }], /one of RandomCrop, .* for op but received 'Sharpen'/],
    [
      'a missing parameter',
      [{ op: 'OpticalDistortion', params: {} }],
      /OpticalDistortion: Expected a finite number .* for k/,
    ],
    ['no parameters', [{ op: 'HorizontalFlip' }], /an object for params of HorizontalFlip/],
    ['a kernel of another side', [{ op: 'MedianBlur', params: { ksize: 9 } }], /one of 3, 5, 7 for ksize/],
    [
      'a crop outside',
      [{ op: 'RandomCrop', params: { height: 32, width: 32, y1: 9, x1: 0 } }],
      /a crop inside the 40 × 40/,
    ],
    ['a channel that is not there', [{ op: 'ChannelDropout', params: { channels: [4] } }], /channels below 4/],
    [
      'noise of another shape',
      [{ op: 'GaussNoise', params: { var: 5 }, noise: { data: new Float32Array(4), shape: [1, 1, 4] } }],
      /\(40, 40, 4\) for noise of GaussNoise/,
    ],
    [
      'noise where there is none',
      [{ op: 'HorizontalFlip', params: {}, noise: IMAGE }],
      /no noise for noise of HorizontalFlip/,
    ],
    ['no array', { op: 'HorizontalFlip' }, /an array of/],
  ])('%s', async (_name, steps, message) => {
    const run = augmentWith(IMAGE, steps as GivenStep[]);
    await expect(run).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
      message: expect.stringMatching(message) as string,
    });
  });

  test.each<[string, () => unknown]>([
    ['a negative seed', () => sampleAugmentation(-1)],
    ['a seed of more than 64 bits', () => sampleAugmentation(1n << 64n)],
    ['a crop larger than the image', () => sampleAugmentation(1, { size: [64, 64], crop: 96 })],
    ['mixup and cutmix beyond 1', () => sampleAugmentation(1, { mixup: 0.6, cutmix: 0.6 })],
    ['a range of crops that goes down', () => sampleAugmentation(1, { resizedCrop: [1, 0.5] })],
  ])('%s', (_name, call) => expect(call).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error));
});

describe('each operation equals albumentations 0.5.2', () => checkCases(fixture.bind(null, 'augmentation')));
describeShared('all reference cases of the operations', () => checkCases(shared.bind(null, 'aug')));

describe('tables and kernels', () => {
  const ramp: NdArray<Uint8Array> = {
    data: Uint8Array.from({ length: 1024 }, (_, i) => i >> 2),
    shape: [1, 1, 256, 4],
  };
  const curve = async (op: string, params: object) => {
    const { data } = await augmentWith(ramp, [{ op, params }]);
    return data.filter((_, i) => i % 4 === 0);
  };
  const luts = readTensors(fixture('augmentation', 'luts.safetensors'));

  test('every gamma', async () => {
    const rows = luts('gamma').bytes;
    for (let i = 0; i < 41; i++) {
      const got = await curve('RandomGamma', { gamma: (80 + i) / 100 });
      expect(Array.from(got)).toEqual(Array.from(rows.subarray(i * 256, (i + 1) * 256)));
    }
  });

  test('brightness and contrast', async () => {
    const pairs = new Float64Array(luts('brightness_contrast_alpha_beta').bytes.buffer);
    const rows = luts('brightness_contrast').bytes;
    for (let i = 0; i < pairs.length / 2; i++) {
      const got = await curve('RandomBrightnessContrast', { alpha: pairs[2 * i], beta: pairs[2 * i + 1] });
      expect(Array.from(got)).toEqual(Array.from(rows.subarray(i * 256, (i + 1) * 256)));
    }
  });

  test('every motion blur of a single bright pixel', async () => {
    const kernels = readJson<Record<string, Record<string, number>>>(fixture('augmentation', 'motion_kernels.json'));
    const data = new Uint8Array(7 * 7);
    data[3 * 7 + 3] = 240;
    for (const [ksize, lines] of Object.entries(kernels)) {
      const k = Number(ksize);
      for (const [digits, mask] of Object.entries(lines)) {
        const [xs, ys, xe, ye] = Array.from(digits, Number);
        const params = { ksize: k, start_xy: [xs, ys], end_xy: [xe, ye] };
        const out = await augmentWith({ data, shape: [1, 7, 7, 1] }, [{ op: 'MotionBlur', params }]);
        let found = 0;
        // A correlation: the cell (row, column) of the kernel shows at the opposite place.
        for (let n = 0; n < k * k; n++) {
          const [y, x] = [3 + (k >> 1) - Math.floor(n / k), 3 + (k >> 1) - (n % k)];
          if (out.data[y * 7 + x]! > 0) found |= 1 << n;
        }
        expect(found).toBe(mask);
      }
    }
  });
});

describe('the random field of ElasticTransform', () => {
  test('moves a steep ramp by hundredths of a pixel, the same for the same seed', async () => {
    const data = Uint8Array.from({ length: 384 * 384 }, (_, i) => (i % 2 ? 255 : 0));
    const still = [0, 0, 0].map(() => [0, 0]);
    const run = async (seed: number) =>
      (
        await augmentWith({ data, shape: [1, 384, 384, 1] }, [
          { op: 'ElasticTransform', params: { jitter: still, seed } },
        ])
      ).data;
    const [first, again, other] = [await run(1), await run(1), await run(2)];
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
    const { max, mean } = distances(first, data);
    expect(max).toBeLessThanOrEqual(255 * 0.06);
    expect(mean).toBeGreaterThan(0.05);
  });
});

/** The parameters that sampling.json describes, gathered over many draws. */
function gather(draws: AugmentationStep[][]): {
  frequency: Map<string, number>;
  values: Map<string, number[]>;
  optional: number[];
} {
  const frequency = new Map<string, number>();
  const values = new Map<string, number[]>();
  const optional: number[] = [];
  const add = (name: string, ...numbers: number[]) => values.set(name, (values.get(name) ?? []).concat(numbers));
  const fixed = new Set(['RandomCrop', 'RandomRotate90']);
  for (const steps of draws) {
    optional.push(steps.filter(({ op }) => !fixed.has(op)).length);
    for (const { op } of steps) frequency.set(op, (frequency.get(op) ?? 0) + 1);
  }
  const of = (op: string, name: string): (number | number[][] | number[])[] =>
    draws.flatMap((steps) => steps.filter((s) => s.op === op).map((s) => (s.params as Record<string, number>)[name]!));
  const each = (op: string, name: string, change = (v: number) => v) => of(op, name).map((v) => change(v as number));
  const holes = (place: number) =>
    of('CoarseDropout', 'holes_x1y1x2y2').flatMap((v) => (v as number[][]).map((h) => h[place]!));
  add('crop.h_start', ...each('RandomCrop', 'h_start'));
  add('crop.y1_512_to_384', ...each('RandomCrop', 'y1'));
  add('crop.x1_512_to_384', ...each('RandomCrop', 'x1'));
  add('gauss_noise.var', ...each('GaussNoise', 'var'));
  add('coarse_dropout.x1_384', ...holes(0));
  add('coarse_dropout.y1_384', ...holes(1));
  add('iaa_noise.scale', ...each('IAAAdditiveGaussianNoise', 'scale'));
  add('rot90.factor', ...each('RandomRotate90', 'factor'));
  add('grid.step', ...['stepsx', 'stepsy'].flatMap((name) => of('GridDistortion', name).flatMap((v) => v as number[])));
  for (const name of ['angle', 'scale', 'dx', 'dy']) add(`ssr.${name}`, ...each('ShiftScaleRotate', name));
  add('elastic.seed', ...each('ElasticTransform', 'seed'));
  add('optical.k', ...each('OpticalDistortion', 'k'));
  add('iaa_affine.shear_deg', ...each('IAAAffine', 'shear_deg'));
  add('gaussian_blur.ksize', ...each('GaussianBlur', 'ksize'));
  add('motion_blur.ksize', ...each('MotionBlur', 'ksize'));
  add('median_blur.ksize', ...each('MedianBlur', 'ksize'));
  add('gamma.percent', ...each('RandomGamma', 'gamma', (g) => Math.round(100 * g)));
  add('brightness_contrast.alpha', ...each('RandomBrightnessContrast', 'alpha'));
  add('brightness_contrast.beta', ...each('RandomBrightnessContrast', 'beta'));
  return { frequency, values, optional };
}

describe('the draws of training', () => {
  interface Sampling {
    frequency: Record<string, { probability: number }>;
    number_of_optional_ops: Record<string, { probability: number }>;
    parameters: Record<string, { min: number; max: number; mean: number; variance: number }>;
  }
  const sampling = readJson<Sampling>(fixture('augmentation', 'sampling.json'));
  const COUNT = 60000;
  const draws = Array.from({ length: COUNT }, (_, seed) => sampleAugmentation(seed));
  const { frequency, values, optional } = gather(draws);
  const near = (count: number, p: number) =>
    expect(Math.abs(count / COUNT - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / COUNT));

  test('how often each operation is drawn', () => {
    expect([...frequency.keys()].sort()).toEqual(Object.keys(sampling.frequency).sort());
    for (const [op, { probability }] of Object.entries(sampling.frequency)) near(frequency.get(op)!, probability);
  });

  test('how many optional operations an image gets', () => {
    for (const [n, { probability }] of Object.entries(sampling.number_of_optional_ops)) {
      near(optional.filter((k) => k === Number(n)).length, probability);
    }
  });

  test.each([...values.keys()])('%s', (name) => {
    const { min, max, mean, variance } = sampling.parameters[name]!;
    const drawn = values.get(name)!;
    const found = drawn.reduce((sum, v) => sum + v, 0) / drawn.length;
    const spread = drawn.reduce((sum, v) => sum + (v - mean) ** 2, 0) / drawn.length;
    expect(Math.min(...drawn.slice(0, 50000))).toBeGreaterThanOrEqual(min);
    expect(Math.max(...drawn.slice(0, 50000))).toBeLessThanOrEqual(max);
    expect(Math.abs(found - mean)).toBeLessThanOrEqual(5 * Math.sqrt(variance / drawn.length));
    // The relative error of a variance is at most that of a uniform one, .9 / sqrt(n), or of two values, 1 / sqrt(n).
    expect(Math.abs(spread / variance - 1)).toBeLessThanOrEqual(5 / Math.sqrt(drawn.length));
  });

  test('the order is that of the stages, and the same seed gives the same', () => {
    const order = Object.keys(sampling.frequency);
    expect(sampleAugmentation(7n)).toEqual(draws[7]);
    for (const steps of draws.slice(0, 1000)) {
      expect(steps[0]!.op).toBe('RandomCrop');
      const turn = steps.findIndex((s) => s.op === 'RandomRotate90');
      for (const { op } of steps.slice(turn + 1)) expect(order).toContain(op);
    }
  });

  test('levels and extras', () => {
    const ops = (o: Parameters<typeof sampleAugmentation>[1]) =>
      new Set(
        Array.from({ length: 300 }, (_, seed) => sampleAugmentation(seed, o)).flatMap((s) => s.map(({ op }) => op)),
      );
    expect(ops({ level: 'none' })).toEqual(new Set(['RandomCrop']));
    expect(ops({ level: 'flips' })).toEqual(new Set(['RandomCrop', 'HorizontalFlip', 'RandomRotate90']));
    expect(ops({ level: 'none', channelDropout: 0.5, resizedCrop: [0.5, 1] })).toEqual(
      new Set(['RandomResizedCrop', 'ChannelDropout']),
    );
  });
});

describe('noise', () => {
  interface PixelNoise {
    op: string;
    input_value: number;
    var?: number;
    scale?: number;
    mean: number;
    variance: number;
    p_zero: number;
    p_255: number;
  }
  const { pixel_noise: cases } = readJson<{ pixel_noise: PixelNoise[] }>(fixture('augmentation', 'sampling.json'));

  test.each(cases.map((c) => [`${c.op} of ${c.input_value} by ${c.var ?? c.scale}`, c] as const))(
    '%s',
    async (_name, c) => {
      const side = 256;
      const images = { data: new Uint8Array(2 * side * side * 4).fill(c.input_value), shape: [2, side, side, 4] };
      const params = c.op === 'GaussNoise' ? { var: c.var, seed: 5 } : { scale: c.scale, seed: 5 };
      const { data } = await augmentWith(images, [{ op: c.op, params }]);
      const n = c.op === 'GaussNoise' ? data.length : data.length / 4;
      const count = (value: number) => data.reduce((sum, v) => sum + Number(v === value), 0) / data.length;
      const mean = data.reduce((sum, v) => sum + v, 0) / data.length;
      const variance = data.reduce((sum, v) => sum + (v - c.mean) ** 2, 0) / data.length;
      expect(Math.abs(mean - c.mean)).toBeLessThanOrEqual(5 * Math.sqrt(c.variance / n));
      expect(Math.abs(variance / c.variance - 1)).toBeLessThanOrEqual(0.05);
      for (const [value, p] of [
        [0, c.p_zero],
        [255, c.p_255],
      ] as const) {
        expect(Math.abs(count(value) - p)).toBeLessThanOrEqual(5 * Math.sqrt(Math.max(p * (1 - p), 1e-6) / n));
      }
    },
  );

  test('each image of a batch has its own, the same whatever the batch', async () => {
    const one = { data: new Uint8Array(64 * 64 * 4).fill(128), shape: [1, 64, 64, 4] };
    const two = { data: new Uint8Array(2 * 64 * 64 * 4).fill(128), shape: [2, 64, 64, 4] };
    const steps = [{ op: 'GaussNoise', params: { var: 20, seed: 9 } }];
    const [single, both] = [await augmentWith(one, steps), await augmentWith(two, steps)];
    expect(both.data.subarray(0, single.data.length)).toEqual(single.data);
    expect(both.data.subarray(single.data.length)).not.toEqual(single.data);
  });
});

test('what training draws can be applied, to images that are not square too', async () => {
  const images = { data: new Uint8Array(2 * 96 * 80 * 3).fill(100), shape: [2, 96, 80, 3] };
  for (let seed = 0; seed < 40; seed++) {
    const steps = sampleAugmentation(seed, { size: [96, 80], crop: 64, channels: 3, channelDropout: 0.2 });
    const { shape } = await augmentWith(images, steps);
    expect(shape).toEqual([2, 64, 64, 3]);
  }
});
