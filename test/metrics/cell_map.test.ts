import { readFileSync } from 'node:fs';
import { cellMap, decodeMask, type CellDetection, type CellInstance, type CellMask, type NdArray } from '../../dist';
import { readLabelMask } from '../../dist/data/png';
import { fixture, readJson } from '../reference_cases';

const CASES = ['simple', 'mixed', 'mixed_ties', 'ties', 'verified', 'group_of', 'box_vs_mask', 'threshold', 'empty'];
const VARIANTS = {
  mask: { variant: 'mask' },
  box: { variant: 'box' },
  mask_strict: { variant: 'mask_strict' },
  mask_group_weight_1: { variant: 'mask', groupOfWeight: 1 },
  box_group_weight_0: { variant: 'box', groupOfWeight: 0 },
} as const;

interface Expected {
  map: number | 'NaN';
  ap: (number | 'NaN')[];
  num_gt: number[];
  outcome: string;
}

interface Case {
  images: { id: string; gt_map: string; gt: { cell: number; classes: number[]; group_of?: number }[]; verified_classes: number[] }[]; // prettier-ignore
  detections: { image: string; map: string | null; cell: number; class: number; conf: number }[];
  expected: Record<string, Expected>;
}

async function read(name: string) {
  const given = readJson<Case>(fixture('metrics', 'cell_map', `${name}.json`));
  const maps = new Map<string, NdArray<Uint16Array>>();
  for (const file of [...given.images.map((i) => i.gt_map), ...given.detections.map((d) => d.map)])
    if (file !== null && !maps.has(file)) maps.set(file, await readLabelMask(fixture('metrics', 'cell_map', file)));
  const mask = (file: string | null, cellId: number): CellMask =>
    file === null ? null : { map: maps.get(file)!, cellId };
  const truth = given.images.flatMap(({ id, gt_map, gt }) =>
    gt.flatMap(({ cell, classes, group_of }) =>
      classes.map((classId): CellInstance => ({
        image: id,
        mask: mask(gt_map, cell),
        classId,
        groupOf: group_of === 1,
      })),
    ),
  );
  const detections = given.detections.map((d): CellDetection => ({
    image: d.image,
    mask: mask(d.map, d.cell),
    classId: d.class,
    confidence: d.conf,
  }));
  const verified = Object.fromEntries(given.images.map(({ id, verified_classes }) => [id, verified_classes]));
  return { truth, detections, verified, expected: given.expected };
}

describe('reference cases', () => {
  test.each(CASES)('%s', async (name) => {
    const { truth, detections, verified, expected } = await read(name);
    expect(Object.keys(expected).length).toBeGreaterThan(2);
    for (const [variant, { map, ap, num_gt, outcome }] of Object.entries(expected)) {
      const result = cellMap(detections, truth, { ...VARIANTS[variant as keyof typeof VARIANTS], verified });
      expect([variant, result.outcomes.join('')]).toEqual([variant, outcome]);
      expect(result.instances).toEqual(num_gt);
      ap.forEach((value, c) => expect([variant, c, result.ap[c]]).toEqual([variant, c, value === 'NaN' ? NaN : expect.closeTo(value, 9)])); // prettier-ignore
      expect(result.mAP).toEqual(map === 'NaN' ? NaN : expect.closeTo(map, 9));
    }
  });
});

test('masks read from a submission give what label maps give', async () => {
  const { truth, detections, verified } = await read('mixed');
  const [, ...rows] = readFileSync(fixture('metrics', 'cell_map', 'mixed_submission.csv'), 'utf8')
    .trim()
    .split('\n');
  const submitted = rows.flatMap((row): CellDetection[] => {
    const [image = '', width, height, text = ''] = row.split(',');
    const words = text.split(' ');
    return Array.from({ length: words.length / 3 }, (_, i) => ({
      image,
      classId: Number(words[3 * i]),
      confidence: Number(words[3 * i + 1]),
      mask: { map: decodeMask(words[3 * i + 2]!, [Number(height), Number(width)]), cellId: 1 },
    }));
  });
  expect(submitted.length).toBe(detections.length);
  for (const variant of ['mask', 'box', 'mask_strict'] as const) {
    const { mAP, ap, instances } = cellMap(detections, truth, { variant, verified });
    expect(cellMap(submitted, truth, { variant, verified })).toMatchObject({ mAP, ap, instances });
  }
});

const square = { data: Uint8Array.of(1, 1, 2, 2, 1, 1, 2, 2, 0, 0, 3, 3), shape: [3, 4] };
const cell = (cellId: number): CellMask => ({ map: square, cellId });

test('wrong arguments', () => {
  const wrong = (detections: unknown, truth: unknown, o?: object): (() => unknown) => () => cellMap(detections as never, truth as never, o); // prettier-ignore
  const error = (message: RegExp) =>
    expect.objectContaining({ code: 'ERR_INVALID_ARG', message: expect.stringMatching(message) as string }) as Error;
  expect(wrong(undefined, [])).toThrow(error(/detections/));
  expect(wrong([], [{ image: 'a', mask: cell(1), classId: 19 }])).toThrow(error(/truth\[0\]\.classId/));
  expect(wrong([{ image: 'a', mask: 7, classId: 0, confidence: 1 }], [])).toThrow(error(/detections\[0\]\.mask/));
  expect(wrong([{ image: 'a', mask: null, classId: 0, confidence: NaN }], [])).toThrow(error(/confidence/));
  expect(wrong([], [], { iou: 2 })).toThrow(error(/iou/));
  expect(wrong([], [], { variant: 'boxes' })).toThrow(error(/variant/));
  const other = { map: { data: new Uint8Array(4), shape: [2, 2] }, cellId: 1 };
  expect(wrong([{ image: 'a', mask: other, classId: 0, confidence: 1 }], [{ image: 'a', mask: cell(1), classId: 0 }])).toThrow(error(/one size/)); // prettier-ignore
});

test('one cell found, one missed, one taken twice', () => {
  const truth = [1, 2].map((cellId) => ({ image: 'a', mask: cell(cellId), classId: 4 }));
  const found = (cellId: number, confidence: number): CellDetection => ({ image: 'a', mask: cell(cellId), classId: 4, confidence }); // prettier-ignore
  const result = cellMap([found(1, 0.9), found(1, 0.8), found(3, 0.7)], truth);
  expect(result.outcomes.join('')).toBe('TFF');
  expect([result.mAP, result.ap[4], result.instances[4]]).toEqual([0.5, 0.5, 2]);
  expect(cellMap([], [])).toMatchObject({ mAP: NaN, outcomes: [] });
});
