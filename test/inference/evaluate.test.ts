import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeMask, evaluatePredictions, type DatasetSpec } from '../../dist';
import { writeGrey16 } from '../../dist/data/png';
import { cellcam } from '../cli/run_cellcam';
import { scratchFolder } from '../data/scratch';
import { fixture, readJson } from '../reference_cases';

const scratch = scratchFolder();
const cellMap = (name: string): string => fixture('metrics', 'cell_map', name);

describe('a submission against the evaluator’s table', () => {
  test.each(['mask', 'box', 'mask_strict'] as const)('%s: the reference’s scores', async (variant) => {
    const { expected } = readJson<{ expected: Record<string, { map: number; ap: (number | 'NaN')[]; num_gt: number[] }> }>(cellMap('mixed.json')); // prettier-ignore
    const { cells, withoutPredictions, withoutTruth } = await evaluatePredictions({
      predictions: cellMap('mixed_submission.csv'),
      truth: cellMap('mixed_annotations.csv'),
      variant,
    });
    const want = expected[variant]!;
    expect(cells!.mAP).toBeCloseTo(want.map, 9);
    expect(cells!.instances).toEqual(want.num_gt);
    cells!.ap.forEach((v, c) => (want.ap[c] === 'NaN' ? expect(v).toBeNaN() : expect(v).toBeCloseTo(want.ap[c]!, 9)));
    expect(withoutPredictions).toEqual(['img_1']);
    expect(withoutTruth).toEqual(['img_not_in_gt']);
  });
});

const SPEC: DatasetSpec = {
  classes: ['a', 'b', 'none'],
  negativeClass: 2,
  channels: [{ name: 'x', suffix: 'x', mean: 0.5, std: 0.25 }],
  nucleusChannel: 'x',
  cellChannels: [],
};

/** Two fields of 4 × 4 with cells 1 (left half) and 2 (right half), their truth and image labels. */
async function makeTruth(): Promise<void> {
  mkdirSync(scratch.path('masks'));
  const halves = Uint16Array.from({ length: 16 }, (_, i) => (i % 4 < 2 ? 1 : 2));
  for (const id of ['p', 'q']) await writeGrey16(scratch.path('masks', `${id}.png`), halves, [4, 4]);
  writeFileSync(scratch.path('truth.csv'), 'ID,cell_id,Label\np,1,a\np,2,a|b\nq,1,b\nq,2,none\n');
  writeFileSync(scratch.path('labels.csv'), 'ID,Label\np,a|b\nq,b|none\n');
}

const cellsCsv = `ID,ImageWidth,ImageHeight,cell_id,cell_center,0,1,2
p,8,8,1,"(2, 4)",0.9,0.1,0.0
p,8,8,2,"(6, 4)",0.2,0.8,0.1
q,8,8,1,"(2, 4)",0.6,0.3,0.0
q,8,8,2,"(6, 4)",0.1,0.0,0.7
`;

describe('a table of cells against numbered true cells and image labels', () => {
  test('scores that can be worked out by hand', async () => {
    await makeTruth();
    writeFileSync(scratch.path('cells.csv'), cellsCsv);
    const { cells, imageLevel } = await evaluatePredictions({
      predictions: scratch.path('cells.csv'),
      truth: scratch.path('truth.csv'),
      truthMasks: scratch.path('masks'),
      labelsFile: scratch.path('labels.csv'),
      spec: SPEC,
      output: scratch.path('scores.json'),
    });
    // a: .9 right, .2 right; q has no a, so that its detections of a do not count. b: .8 right, .3 right, then .1 wrong.
    expect(cells!.ap).toEqual([1, 1, 1]);
    expect(cells!.instances).toEqual([2, 2, 1]);
    expect(cells!.curves[1]).toEqual({ confidence: [0.8, 0.3, 0.1], precision: [1, 1, 2 / 3], recall: [0.5, 1, 1] });
    // Likeliest: p1 a, p2 b, q1 a, q2 none.
    expect(cells!.confusion).toEqual([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]); // prettier-ignore
    // p: a and b over .5, both true. q: a and none over .5, true are b and none: F1 .5.
    expect(imageLevel).toMatchObject({ images: 2, f1: 0.75 });
    expect(imageLevel!.ap).toEqual([1, 1, 1]);
    expect(readJson<{ cells: { mAP: number } }>(scratch.path('scores.json')).cells.mAP).toBe(1);
  });

  test('the same as a submission, whatever the size it was made at', async () => {
    await makeTruth();
    const half = (right: boolean): string =>
      encodeMask({ data: Uint8Array.from({ length: 64 }, (_, i) => Number(i % 8 >= 4 === right)), shape: [8, 8] });
    const [left, right] = [half(false), half(true)];
    const rows = [
      `p,8,8,0 0.9 ${left} 1 0.1 ${left} 0 0.2 ${right} 1 0.8 ${right} 2 0.1 ${right}`,
      `q,8,8,0 0.6 ${left} 1 0.3 ${left} 0 0.1 ${right} 2 0.7 ${right}`,
    ];
    writeFileSync(scratch.path('submission.csv'), `ID,ImageWidth,ImageHeight,PredictionString\n${rows.join('\n')}\n`);
    const { cells } = await evaluatePredictions({
      predictions: scratch.path('submission.csv'),
      truth: scratch.path('truth.csv'),
      truthMasks: scratch.path('masks'),
      spec: SPEC,
    });
    expect(cells!.ap).toEqual([1, 1, 1]);
    expect(cells!.confusion[0]).toEqual([1, 1, 0, 0]);
  });

  test('cells that were not found count as missed', async () => {
    await makeTruth();
    writeFileSync(scratch.path('cells.csv'), cellsCsv.split('\n').slice(0, 3).join('\n'));
    const { cells, withoutPredictions } = await evaluatePredictions({
      predictions: scratch.path('cells.csv'),
      truth: scratch.path('truth.csv'),
      truthMasks: scratch.path('masks'),
      spec: SPEC,
    });
    expect(withoutPredictions).toEqual(['q']);
    expect(cells!.ap).toEqual([1, 0.5, 0]);
    expect(cells!.confusion[2]).toEqual([0, 0, 0, 1]);
  });

  test('on the command line', async () => {
    await makeTruth();
    writeFileSync(scratch.path('cells.csv'), cellsCsv);
    writeFileSync(scratch.path('spec.json'), JSON.stringify(SPEC));
    const at = (name: string): string => scratch.path(name);
    const args = ['evaluate', '--predictions', at('cells.csv'), '--truth', at('truth.csv'), '--truth_masks', at('masks'), '--labels_file', at('labels.csv'), '--spec', at('spec.json')]; // prettier-ignore
    const { code, stdout } = await cellcam(args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/Mean +1\.000 +1\.000/);
    expect(stdout).toMatch(/F1 of images at \.5: 0\.750/);
  });
});

describe('wrong input is told with file and row', () => {
  test.each([
    ['a word missing', 'ID,ImageWidth,ImageHeight,PredictionString\np,8,8,0 0.5\n', /row 2: Expected triplets/],
    [
      'no number',
      'ID,ImageWidth,ImageHeight,PredictionString\np,8,8,0 high x\n',
      /row 2: Expected a number for a confidence but found 'high'/,
    ],
    [
      'an unknown class',
      'ID,ImageWidth,ImageHeight,PredictionString\np,8,8,7 0.5 x\n',
      /'p': Expected classes from 0 to 2 but found 7/,
    ],
    ['an image twice', 'ID,ImageWidth,ImageHeight,PredictionString\np,8,8,\np,8,8,\n', /'p' once/],
    ['other columns', 'a,b\n1,2\n', /PredictionString or cell_id/],
    ['a mask that is none', 'ID,ImageWidth,ImageHeight,PredictionString\np,8,8,0 0.5 x\n', /mask/],
  ])('%s', async (_, text, message) => {
    await makeTruth();
    writeFileSync(scratch.path('bad.csv'), text);
    const run = evaluatePredictions({
      predictions: scratch.path('bad.csv'),
      truth: scratch.path('truth.csv'),
      truthMasks: scratch.path('masks'),
      spec: SPEC,
    });
    await expect(run).rejects.toThrow(message);
  });

  test('truth without masks, or nothing to compare with', async () => {
    await makeTruth();
    const predictions = scratch.path('cells.csv');
    copyFileSync(cellMap('mixed_submission.csv'), predictions);
    await expect(evaluatePredictions({ predictions, truth: scratch.path('truth.csv'), spec: SPEC })).rejects.toThrow(/truthMasks/); // prettier-ignore
    await expect(evaluatePredictions({ predictions, spec: SPEC })).rejects.toThrow(/truth, or labelsFile/);
    expect(readFileSync(join(scratch.path(), 'truth.csv'), 'utf8')).toContain('cell_id');
  });
});
