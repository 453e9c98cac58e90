import { readFileSync } from 'node:fs';
import { readLabels } from '../../dist/data/labels';
import { foldBalance } from '../../dist/folds/balance';
import { stratifiedFolds } from '../../dist/folds/stratification';
import { describeShared, fixture, readJson, shared } from '../reference_cases';

interface Split {
  n_splits: number;
  random_state: number;
  fold: number[];
  fold_sizes: number[];
  label_counts_per_fold: number[][];
}

function readMatrix(path: string) {
  const rows = readFileSync(path, 'utf8').trim().split('\n');
  const data = Uint8Array.from(rows.flatMap((row) => row.split(',').map(Number)));
  return { data, shape: [rows.length, data.length / rows.length] };
}

const matrix = (rows: number[][]) => ({
  data: Uint8Array.from(rows.flat()),
  shape: [rows.length, rows[0]?.length ?? 0],
});

describe('stratifiedFolds', () => {
  const two = matrix([
    [1, 0],
    [0, 1],
  ]);

  it.each([
    ['no matrix', undefined, 2, 0, 'labels'],
    ['one class', matrix([[1], [0]]), 2, 0, 'at least 2 classes'],
    ['a value of 2', matrix([[1, 0], [0, 2]]), 2, 0, 'row 1, class 1'], // prettier-ignore
    ['a wrong length', { data: new Uint8Array(3), shape: [2, 2] }, 2, 0, 'Expected 4 values'],
    ['one fold', two, 1, 0, 'folds'],
    ['more folds than rows', two, 3, 0, 'folds'],
    ['a negative seed', two, 2, -1, 'seed'],
  ])('refuses %s', (_, labels, folds, seed, message) => {
    const call = () => stratifiedFolds(labels as never, { folds, seed });
    expect(call).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error);
    expect(call).toThrow(message);
  });

  it.each(['synthetic_ties_k4_seed2020', 'synthetic_zero_k5_seed11'])('splits %s as the reference does', (name) => {
    const expected = readJson<Split>(fixture('folds', `${name}.json`));
    const labels = readMatrix(fixture('folds', `${name}.csv`));
    const fold = stratifiedFolds(labels, { folds: expected.n_splits, seed: expected.random_state });
    expect([...fold]).toEqual(expected.fold);
    expect(foldBalance(labels, fold)).toEqual({ sizes: expected.fold_sizes, counts: expected.label_counts_per_fold });
  });

  it('takes time in proportion to the rows', () => {
    const rows = 100_000;
    const labels = { data: new Uint8Array(rows * 19), shape: [rows, 19] };
    for (let i = 0; i < rows; i++) labels.data[i * 19 + ((i * i) % 19)] = labels.data[i * 19 + (i % 7)] = 1;
    const start = performance.now();
    stratifiedFolds(labels, { folds: 4, seed: 1 });
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

describeShared('stratifiedFolds of a whole table', () => {
  it.each([2020, 12120])('seed %i', (seed) => {
    const expected = readJson<Split>(shared('stratify', `holdout_k4_seed${seed}.json`));
    const { labels } = readLabels(shared('labels', 'holdout.csv'));
    expect([...stratifiedFolds(labels, { folds: 4, seed })]).toEqual(expected.fold);
  });
});

describe('foldBalance', () => {
  const labels = matrix([
    [1, 0],
    [1, 1],
  ]);

  it('refuses folds that do not fit', () => {
    expect(() => foldBalance(labels, [1])).toThrow('Expected 2 values for fold');
    expect(() => foldBalance(labels, [1, 0])).toThrow('fold[1]');
    expect(() => foldBalance(labels, [1, 3], 2)).toThrow('from 1 to 2');
  });

  it('counts empty folds too', () => {
    expect(foldBalance(labels, [1, 1], 2)).toEqual({ sizes: [2, 0], counts: [[2, 1], [0, 0]] }); // prettier-ignore
  });
});
