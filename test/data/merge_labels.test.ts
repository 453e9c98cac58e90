import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { HPA, mergeLabels, readLabels } from '../../dist';
import { datasetSpec } from '../../dist/data/dataset_spec';
import { describeShared, shared } from '../reference_cases';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();
const spec = datasetSpec({ classes: ['Nucleoli', 'Cytosol', 'Golgi apparatus'], channels: ['x'] });
const coded = (code: string) => expect.objectContaining({ code }) as Error;

function file(name: string, ...lines: string[]): string {
  writeFileSync(scratch.path(name), lines.join('\n') + '\n');
  return scratch.path(name);
}

/** Merges into out.csv; the rows written, without the one-hot columns. */
function merged(o: object) {
  const result = mergeLabels({ output: scratch.path('out.csv'), spec, ...o });
  const { ids, lists, ext } = readLabels(result.output, { spec });
  return { ...result, rows: ids.map((id, i) => `${id} ${lists[i]!.join('|')} ${ext[i]}`) };
}

const NONE = { unlabelled: 0, inTrainSet: 0, repeated: 0, heldOut: 0, inEarlier: 0 };
const PUBLIC = 'Image,Label,Cellline,in_trainset,Label_idx';

describe('mergeLabels refuses', () => {
  test('wrong arguments', () => {
    const trainCsv = file('train.csv', 'ID,Label', 'a,0');
    const output = scratch.path('out.csv');
    for (const o of [
      null,
      { output },
      { output, external: [] },
      { output, external: trainCsv },
      { output, external: [3] },
      { output, trainCsv: '' },
      { trainCsv },
      { output: trainCsv, trainCsv },
      { output: scratch.path('.', 'train.csv'), external: [trainCsv] },
      { output, trainCsv: trainCsv, holdout: output },
      { output, trainCsv, skipUnlabelled: 1 },
      { output, trainCsv, spec: {} },
    ]) {
      expect(() => mergeLabels(o as never)).toThrow(coded('ERR_INVALID_ARG'));
    }
    expect(readdirSync(scratch.path())).toEqual(['train.csv']);
  });

  test.each([
    ['a row without a label', ['ID,Label', 'a,0', 'b,'], 3, 'at least one label'],
    ['a class above the last', ['ID,Label', 'a,3'], 2, 'from 0 to 2'],
    ['an unknown class name', ['ID,Label', 'a,Vesicles'], 2, "received 'Vesicles'"],
    ['a number among names', ['ID,Label', 'a,Cytosol|0'], 2, "received 'Cytosol|0'"],
    ['no Label', ['ID,Target', 'a,0'], 1, 'Label is missing'],
  ])('%s, writing nothing', (_, lines, line, message) => {
    const good = file('good.csv', 'ID,Label', 'z,0');
    const bad = file('bad.csv', ...lines);
    for (const o of [{ trainCsv: bad }, { trainCsv: good, external: [bad] }]) {
      expect(() => merged(o)).toThrow(coded('ERR_TABLE'));
      expect(() => merged(o)).toThrow(`${bad}:${line}: `);
      expect(() => merged(o)).toThrow(message);
    }
    expect(readdirSync(scratch.path()).sort()).toEqual(['bad.csv', 'good.csv']);
  });

  test('missing files, an output that cannot be written, and tables of which nothing is left', () => {
    const trainCsv = file('train.csv', 'ID,Label', 'a,0');
    expect(() => merged({ trainCsv: scratch.path('none.csv') })).toThrow(coded('ERR_FILE_NOT_FOUND'));
    expect(() => merged({ trainCsv, holdout: scratch.path('none.csv') })).toThrow(coded('ERR_FILE_NOT_FOUND'));
    expect(() => merged({ trainCsv, output: scratch.path('none', 'out.csv') })).toThrow(coded('ERR_WRITE'));
    expect(() => merged({ trainCsv, holdout: file('holdout.csv', 'ID', 'a') })).toThrow('all rows were left out');
    expect(readdirSync(scratch.path()).sort()).toEqual(['holdout.csv', 'train.csv']);
  });
});

describe('mergeLabels', () => {
  test("writes the original's layout, in the order of the inputs", () => {
    const trainCsv = file('train.csv', 'ID,Label', 'b,2|0', 'a,1');
    const external = [file('public.csv', 'note,ID,Label,Cellline,ext', 'hm,d,1|0,HeLa,web', ',c,2,,default')];
    const { images, inputs } = merged({ trainCsv, external });
    expect(readFileSync(scratch.path('out.csv'), 'utf8').trim().split('\n')).toEqual([
      'ID,Label,ext,Nucleoli,Cytosol,Golgi apparatus',
      'b,"[2, 0]",default,1,0,1',
      'a,[1],default,0,1,0',
      'd,"[1, 0]",external,1,1,0',
      'c,[2],external,0,0,1',
    ]);
    expect(images).toBe(4);
    expect(inputs).toEqual([
      { path: trainCsv, rows: 2, kept: 2, ...NONE },
      { path: external[0], rows: 2, kept: 2, ...NONE },
    ]);
  });

  test('what it wrote is an input like others, and keeps its ext as the first table', () => {
    const trainCsv = file('train.csv', 'ID,Label', 'a,1|0');
    const first = mergeLabels({ trainCsv, external: [file('x.csv', 'ID,Label', 'b,2')], output: scratch.path('1.csv'), spec }); // prettier-ignore
    expect(merged({ trainCsv: first.output }).rows).toEqual(['a 1|0 default', 'b 2 external']);
    expect(merged({ external: [first.output] }).rows).toEqual(['a 1|0 external', 'b 2 external']);
    expect(readFileSync(scratch.path('1.csv'), 'utf8').replaceAll('default', 'external')).toBe(
      readFileSync(scratch.path('out.csv'), 'utf8'),
    );
  });

  test('keeps an ID once, from the first table, and counts what it left out', () => {
    const trainCsv = file('train.csv', 'ID,Label', 'a,0', 'b,0', 'a,1', 'held,0');
    const external = [
      file('1.csv', 'ID,Label', 'b,1', 'c,1', 'held,1'),
      file('2.csv', 'ID,Label', 'c,2', 'a,2', 'd,2', 'd,0'),
    ];
    const { rows, inputs } = merged({ trainCsv, external, holdout: file('holdout.csv', 'ID,n', 'held,1', 'other,2') });
    expect(rows).toEqual(['a 0 default', 'b 0 default', 'c 1 external', 'd 2 external']);
    expect(inputs).toEqual([
      { path: trainCsv, ...NONE, rows: 4, kept: 2, repeated: 1, heldOut: 1 },
      { path: external[0], ...NONE, rows: 3, kept: 1, inEarlier: 1, heldOut: 1 },
      { path: external[1], ...NONE, rows: 4, kept: 1, inEarlier: 2, repeated: 1 },
    ]);
  });

  test('leaves out rows without a label if told to', () => {
    const trainCsv = file('train.csv', 'ID,Label', 'a,', 'b,[]', 'c,"[ ]"', 'd,1');
    const { rows, inputs } = merged({ trainCsv, skipUnlabelled: true });
    expect(rows).toEqual(['d 1 default']);
    expect(inputs[0]).toEqual({ path: trainCsv, ...NONE, rows: 4, kept: 1, unlabelled: 3 });
    const wrong = file('wrong.csv', 'ID,Label', 'a,7');
    expect(() => merged({ trainCsv: wrong, skipUnlabelled: true })).toThrow(coded('ERR_TABLE'));
  });

  test('takes class names between bars or commas', () => {
    const lines = ['a,"Cytosol,Nucleoli"', 'b,Golgi apparatus | Cytosol', 'c,Golgi apparatus', 'd,2'];
    expect(merged({ trainCsv: file('train.csv', 'ID,Label', ...lines) }).rows).toEqual([
      'a 1|0 default',
      'b 2|1 default',
      'c 2 default',
      'd 2 default',
    ]);
    const commas = datasetSpec({ classes: ['x', 'y', 'x, y'], channels: ['x'] });
    const read = (text: string) => readLabels(file('commas.csv', 'ID,Label', `a,"${text}"`), { spec: commas }).lists[0];
    expect([read('x, y'), read('x, y|x'), read('y')]).toEqual([[2], [2, 0], [1]]);
    expect(() => read('y, x')).toThrow(coded('ERR_TABLE')); // with a comma in a name, commas part no names
  });

  test("takes HPA's public table: addresses, Label_idx, rows of Kaggle's train set left out beside train.csv", () => {
    const url = 'https://images.proteinatlas.org/10005/921_B9';
    const lines = [
      `${url}_1,"Nuclear rim,Cytosol",HeLa,False,1`,
      `${url}_2,Cytosol,A549,True,1`,
      `${url}_3,Rods,,True,`,
    ];
    const table = file('kaggle_2021.tsv', PUBLIC, ...lines);
    const trainCsv = file('train.csv', 'ID,Label', 'a,0');
    const both = merged({ trainCsv, external: [table] });
    expect(both.rows).toEqual(['a 0 default', '921_B9_1 1 external']);
    expect(both.inputs[1]).toEqual({ path: table, ...NONE, rows: 3, kept: 1, inTrainSet: 2 });
    const alone = merged({ external: [table], skipUnlabelled: true });
    expect(alone.rows).toEqual(['921_B9_1 1 external', '921_B9_2 1 external']);
    expect(() => merged({ external: [table] })).toThrow(`${table}:4: `);
    expect(() => merged({ external: [file('no_id.csv', PUBLIC, 'x/,Cytosol,,False,1')] })).toThrow('non-empty ID');
  });

  test('leaves addresses in a column ID as they are', () => {
    expect(merged({ trainCsv: file('train.csv', 'ID,Label', 'x/a,0', 'y/a,1') }).rows).toHaveLength(2);
  });
});

describeShared("the original's tables", () => {
  test('without the holdout images', () => {
    const [holdout, other] = [shared('labels', 'holdout.csv'), shared('labels', 'train_cleaned_2018.csv')];
    const output = scratch.path('out.csv');
    const { images, inputs } = mergeLabels({ trainCsv: other, external: [holdout], output });
    expect([images, ...inputs.map(({ kept }) => kept)]).toEqual([19308, 9102, 10206]);
    const written = readLabels(output);
    expect(written.lists).toEqual([other, holdout].flatMap((path) => readLabels(path).lists));
    expect(readFileSync(output, 'utf8').split('\n')[0]).toBe(['ID', 'Label', 'ext', ...HPA.classes].join(','));
    expect(mergeLabels({ trainCsv: other, external: [holdout], holdout, output }).images).toBe(9102);
  });
});
