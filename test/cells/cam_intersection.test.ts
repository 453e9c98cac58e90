import { intersectCams, makeCam, type CellPrediction } from '../../dist/cells/cam_intersection';
import { resizeCam } from '../../dist/cells/enlarge';
import { quantileOf } from '../../dist/cells/quantile';
import { oofHeader, oofRow } from '../../dist/cells/oof_rows';
import { datasetSpec } from '../../dist/data/dataset_spec';
import { readFileSync } from 'node:fs';
import { describeShared, fixture, readJson, readLabelImage, readTensors, shared } from '../reference_cases';

interface Reference {
  uid: string;
  ImageWidth: number;
  ImageHeight: number;
  cell_ids: number[];
  predicted_classes: { class: number; total_qt: number; cells: { cell_id: number; cell_qt: number }[] }[];
  result: { class: number; conf: number; center_xy: [number, number]; cell_id: number }[];
}

const tensor = readTensors(fixture('cells', 'maps.safetensors'));
const references = readJson<Reference[]>(fixture('cells', 'cells.json'));
const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error;

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a, (v, i) => Math.abs(v - b[i]!)).reduce((x, y) => Math.max(x, y), 0);
}

async function predict({ uid, ImageHeight, ImageWidth }: Reference): Promise<CellPrediction[]> {
  const p = { logits: tensor(`${uid}.logits`).data, maps: tensor(`${uid}.features`) };
  return intersectCams(p, await readLabelImage(fixture('cells', `${uid}_cells.png`)), {
    originalSize: [ImageHeight, ImageWidth],
  });
}

describe('makeCam', () => {
  it('refuses empty, wrong and infinite maps', () => {
    expect(() => makeCam({ data: new Float32Array(0), shape: [1, 0, 0] })).toThrow(invalid);
    expect(() => makeCam({ data: new Float32Array(4), shape: [2, 2] })).toThrow(invalid);
    expect(() => makeCam({ data: Float32Array.of(1, NaN), shape: [1, 1, 2] })).toThrow('maps.data[1]');
  });

  it('equals the reference bit for bit', () => {
    // Three images of 19 classes: every map stands by itself, so that they are 57 classes as well.
    const { data, shape } = tensor('make_cam.features');
    const cam = makeCam({ data, shape: [shape[0]! * shape[1]!, shape[2]!, shape[3]!] });
    expect(cam.shape).toEqual([57, 12, 12]);
    expect(largestDifference(cam.data, tensor('make_cam.cam').data)).toBe(0);
  });

  it('leaves maps without activation at 0', () => {
    expect([...makeCam({ data: Float32Array.of(-1, 0, -2, 1e-6), shape: [1, 2, 2] }).data]).toEqual([0, 0, 0, 0]);
  });
});

describe('resizeCam', () => {
  it('refuses to shrink and buffers that do not fit', () => {
    expect(() => resizeCam(new Float32Array(4), [2, 2], [1, 4])).toThrow('to[0]');
    expect(() => resizeCam(new Float32Array(3), [2, 2], [4, 4])).toThrow(invalid);
    expect(() => resizeCam(new Float32Array(4), [2, 2], [4, 4], new Float32Array(15))).toThrow('out');
  });

  it('equals the reference bit for bit at the borders', () => {
    const out = resizeCam(tensor('img_b.cam7').data, [12, 12], [512, 512]);
    const rows = [0, 1, 2, 3, 508, 509, 510, 511].flatMap((y) => [...out.subarray(y * 512, (y + 1) * 512)]);
    expect(largestDifference(rows, tensor('img_b.class7_border_rows').data)).toBe(0);
  });

  it('copies what keeps its size and spreads a single value', () => {
    const cam = Float32Array.of(0.5, 0.25, 1, 0);
    expect(resizeCam(cam, [2, 2], [2, 2])).toEqual(cam);
    expect([...resizeCam(Float32Array.of(0.5), [1, 1], [2, 3])]).toEqual(Array(6).fill(0.5));
  });
});

describe('quantileOf', () => {
  it('interpolates between neighbours', () => {
    expect(quantileOf(Float32Array.of(7), 0, 1, 0.99)).toBe(7);
    expect(quantileOf(Float32Array.of(9, 3, 1, 2, -9), 1, 4, 0)).toBe(1);
    expect(quantileOf(Float32Array.of(9, 3, 1, 2, -9), 1, 4, 1)).toBe(3);
    expect(quantileOf(Float32Array.of(3, 1, 2, 5), 0, 4, 0.25)).toBe(1.75);
  });

  it.each([
    [0.19998109340667725, 0.9635753631591797, 0.2518773674964905, 0.3923132121562958],
    [0.07659739255905151, 0.8940241932868958, 0.016502337530255318, 0.09008684754371643],
    [0.2678585648536682, 0.8170732259750366, 0.6839561462402344, 0.6434972882270813],
    [0.2755897045135498, 0.5676568150520325, 0.8928481936454773, 0.5363612771034241],
  ])(
    'rounds as numpy does between %d and %d, where the other end would give another float',
    (a, b, share, expected) => {
      expect(quantileOf(Float32Array.of(a, b), 0, 2, share)).toBe(expected);
    },
  );

  it('finds the place that sorting finds, with and without equal values', () => {
    for (const kinds of [1, 3, 50, 1e6]) {
      const values = Float32Array.from({ length: 501 }, (_, i) => (i * i * 7919 + i) % kinds);
      const sorted = values.slice().sort();
      for (let place = 0; place <= 500; place += 25) {
        expect(quantileOf(values.slice(), 0, 501, place / 500)).toBe(sorted[place]);
      }
    }
  });

  it.each(references.map((r) => [r.uid, r] as const))(
    '%s: bit for bit over image and cells',
    async (uid, reference) => {
      const cells = await readLabelImage(fixture('cells', `${uid}_cells.png`));
      const cam = makeCam(tensor(`${uid}.features`));
      const [, h, w] = cam.shape as [number, number, number];
      for (const { class: c, total_qt, cells: expected } of reference.predicted_classes) {
        const map = resizeCam(cam.data.subarray(c * h * w, (c + 1) * h * w), [h, w], [512, 512]);
        for (const { cell_id, cell_qt } of expected) {
          const own = map.filter((_, i) => cells.data[i] === cell_id);
          expect(quantileOf(own, 0, own.length, 0.99)).toBe(cell_qt);
        }
        expect(quantileOf(map, 0, map.length, 0.99)).toBe(total_qt);
      }
    },
  );
});

describe('intersectCams refuses', () => {
  const spec = datasetSpec({ classes: ['a', 'b'], channels: ['x'] });
  const logits = Float32Array.of(1, 1);
  const maps = { data: new Float32Array(8).fill(1), shape: [2, 2, 2] };
  const cells = { data: new Uint16Array(16).fill(1), shape: [4, 4] };
  const o = { originalSize: [4, 4] as [number, number], spec };

  it.each([
    ['no logits', () => intersectCams({ maps } as never, cells, o), 'logits'],
    [
      'logits of other classes',
      () => intersectCams({ logits: new Float32Array(3), maps }, cells, o),
      '2 values for logits',
    ],
    [
      'logits that are no numbers',
      () => intersectCams({ logits: Float32Array.of(1, NaN), maps }, cells, o),
      'logits[1]',
    ],
    ['infinite logits', () => intersectCams({ logits: Float32Array.of(Infinity, 1), maps }, cells, o), 'logits[0]'],
    [
      'maps of other classes',
      () => intersectCams({ logits, maps: { data: new Float32Array(4), shape: [1, 2, 2] } }, cells, o),
      'maps',
    ],
    [
      'infinite maps',
      () => intersectCams({ logits, maps: { data: new Float32Array(8).fill(-Infinity), shape: [2, 2, 2] } }, cells, o),
      'maps.data[0]',
    ],
    [
      'cells below the maps',
      () => intersectCams({ logits, maps }, { data: new Uint16Array(2), shape: [1, 2] }, o),
      'at least (2, 2)',
    ],
    [
      '8-bit cells',
      () => intersectCams({ logits, maps }, { data: new Uint8Array(16), shape: [4, 4] } as never, o),
      'cells',
    ],
    [
      'no options',
      () =>
        intersectCams(
          { logits: new Float32Array(19), maps: { data: new Float32Array(19), shape: [19, 1, 1] } },
          cells,
          undefined as never,
        ),
      'originalSize',
    ],
    ['a size of 0', () => intersectCams({ logits, maps }, cells, { ...o, originalSize: [0, 4] }), 'originalSize'],
    ['a quantile above 1', () => intersectCams({ logits, maps }, cells, { ...o, quantile: 1.1 }), 'quantile'],
    ['no classes', () => intersectCams({ logits, maps }, cells, { ...o, maxClasses: 0 }), 'maxClasses'],
  ])('%s', (_, call, message) => {
    expect(call).toThrow(invalid);
    expect(call).toThrow(message);
  });
});

describe('reference images', () => {
  it.each(references.map((r) => [r.uid, r] as const))('%s: every pair and centre', async (_, reference) => {
    const predictions = await predict(reference);
    expect(predictions.map((p) => p.cellId)).toEqual(reference.cell_ids);
    const expected = new Map(reference.cell_ids.map((id) => [id, new Float32Array(19)]));
    for (const { class: c, conf, cell_id } of reference.result) expected.get(cell_id)![c] = conf;
    for (const { cellId, probabilities } of predictions) {
      expect(largestDifference(probabilities, expected.get(cellId)!)).toBeLessThan(1e-6);
    }
    for (const { cell_id, center_xy } of reference.result) {
      expect(predictions.find((p) => p.cellId === cell_id)!.center).toEqual(center_xy);
    }
  });

  it('writes the reference file, byte for byte', async () => {
    const expected = readFileSync(fixture('cells', 'oof.csv'), 'utf8');
    const uids = [
      ...new Set(
        expected
          .split('\n')
          .slice(1, -1)
          .map((line) => line.split(',')[0]!),
      ),
    ];
    let text = oofHeader();
    for (const uid of uids) {
      const image = references.find((r) => r.uid === uid)!;
      const size = { height: image.ImageHeight, width: image.ImageWidth };
      for (const prediction of await predict(image)) text += oofRow(uid, size, prediction);
    }
    expect(text).toBe(expected);
  });
});

/** One cell a column of a 4-wide image; class c has its whole map at `heights[c]`. */
function columns(
  logits: number[],
  heights: number[][],
  options: { negativeClass?: number | null; maxClasses?: number } = {},
) {
  const classes = logits.map((_, c) => `class ${c}`);
  const spec = datasetSpec({ classes, channels: ['x'], negativeClass: options.negativeClass ?? null });
  const maps = {
    data: Float32Array.from(heights.flatMap((row) => Array(4).fill(row).flat() as number[])),
    shape: [logits.length, 4, 4],
  };
  const cells = { data: Uint16Array.from({ length: 16 }, (_, i) => (i % 4) + 1), shape: [4, 4] };
  const p = { logits: Float32Array.from(logits), maps };
  return intersectCams(p, cells, {
    originalSize: [4, 4],
    spec,
    ...(options.maxClasses ? { maxClasses: options.maxClasses } : {}),
  });
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const at = (predictions: CellPrediction[], c: number) => predictions.map((p) => p.probabilities[c]!);

describe('intersectCams', () => {
  it('gives a class to the cells under its map and Negative to the rest', () => {
    const predictions = columns([2, -1], [[1, 0, 0, 0], [0, 0, 0, 0]], { negativeClass: 1 }); // prettier-ignore
    expect(at(predictions, 0)[0]).toBeCloseTo(sigmoid(2), 6);
    expect(at(predictions, 0).slice(1)).toEqual([0, 0, 0]);
    expect(at(predictions, 1)[0]).toBe(0);
    for (const p of at(predictions, 1).slice(1)) expect(p).toBeCloseTo(sigmoid(-1), 6);
  });

  it('makes every cell Negative where every pair is refused, as sure as the surest class', () => {
    const predictions = columns([2, -1], [[0, 0, 0, 0], [0, 0, 0, 0]], { negativeClass: 1 }); // prettier-ignore
    expect(at(predictions, 0)).toEqual([0, 0, 0, 0]);
    for (const p of at(predictions, 1)) expect(p).toBeCloseTo(sigmoid(2), 6);
  });

  it('makes every cell Negative where no class is likely', () => {
    const predictions = columns([-6, -7], [[1, 0, 0, 0], [0, 1, 0, 0]], { negativeClass: 1 }); // prettier-ignore
    for (const p of at(predictions, 1)) expect(p).toBeCloseTo(1 - sigmoid(-6), 6);
  });

  it('leaves zeros where there is no Negative class', () => {
    const predictions = columns([2, -1], [[1, 0, 0, 0], [0, 0, 0, 0]]); // prettier-ignore
    expect(at(predictions, 1)).toEqual([0, 0, 0, 0]);
  });

  it('keeps only the best classes; cells that lose theirs become Negative', () => {
    const heights = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]; // prettier-ignore
    const predictions = columns([1, 2, -2], heights, { negativeClass: 2, maxClasses: 1 });
    expect(at(predictions, 0)).toEqual([0, 0, 0, 0]);
    expect(at(predictions, 1)[1]).toBeCloseTo(sigmoid(2), 6);
    expect(at(predictions, 2)[0]).toBeCloseTo(sigmoid(-2), 6);
    const tied = columns([1, 1, -2], heights, { negativeClass: 2, maxClasses: 1 });
    expect(at(tied, 0)[0]).toBeCloseTo(sigmoid(1), 6);
    expect(at(tied, 1)).toEqual([0, 0, 0, 0]);
  });

  it('clips to the class probability where the image quantile is 0', () => {
    const spec = datasetSpec({ classes: ['a', 'b'], channels: ['x'] });
    const maps = { data: new Float32Array(2 * 400), shape: [2, 20, 20] };
    maps.data[0] = 1;
    const cells = { data: new Uint16Array(400).fill(2, 1), shape: [20, 20] };
    cells.data[0] = 60000;
    const [large, tiny] = intersectCams({ logits: Float32Array.of(1, 1), maps }, cells, {
      originalSize: [20, 20],
      spec,
    });
    expect([large!.cellId, tiny!.cellId]).toEqual([2, 60000]);
    expect(tiny!.probabilities[0]).toBeCloseTo(sigmoid(1), 6);
    expect([...large!.probabilities, tiny!.probabilities[1]]).toEqual([0, 0, 0]);
  });

  it('returns nothing without cells', () => {
    const spec = datasetSpec({ classes: ['a', 'b'], channels: ['x'], negativeClass: 0 });
    const maps = { data: new Float32Array(8), shape: [2, 2, 2] };
    const cells = { data: new Uint16Array(16), shape: [4, 4] };
    expect(intersectCams({ logits: new Float32Array(2), maps }, cells, { originalSize: [8, 8], spec })).toEqual([]);
  });

  it('changes none of its inputs', async () => {
    const reference = references[0]!;
    const first = await predict(reference);
    expect(await predict(reference)).toEqual(first);
    const p = { logits: tensor('img_a.logits').data, maps: tensor('img_a.features') };
    const cells = await readLabelImage(fixture('cells', 'img_a_cells.png'));
    intersectCams(p, cells, { originalSize: [2048, 2048] });
    expect(p.maps.data).toEqual(tensor('img_a.features').data);
    expect(cells).toEqual(await readLabelImage(fixture('cells', 'img_a_cells.png')));
  });
});

describeShared('whole resized maps', () => {
  it.each([
    ['img_a', 0],
    ['img_b', 7],
    ['img_c', 5],
  ])('%s, class %i', (uid, c) => {
    // prettier-ignore
    const all = readTensors(shared('cam', 'inputs_and_cams.safetensors'));
    const { data, shape } = all(`${uid}.cam`);
    const [, h, w] = shape as [number, number, number];
    const out = resizeCam(data.subarray(c * h * w, (c + 1) * h * w), [h, w], [512, 512]);
    const starts = [0, 244, 488].map((y) => [...out.subarray(y * 512, (y + 24) * 512)]);
    expect(largestDifference(starts.flat(), all(`${uid}.resized_class${c}_rows`).data)).toBe(0);
  });
});
