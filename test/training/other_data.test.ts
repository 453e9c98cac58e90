// Another data set: three classes, two channels, no Negative.
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { dumpImages, generateOof, Predictor, trainFolds, type DatasetSpec } from '../../dist';
import { generateFields } from '../../dist/demo/fields';

const SPEC: DatasetSpec = {
  classes: ['ring', 'spots', 'even'],
  negativeClass: null,
  channels: [
    { name: 'protein', suffix: 'p', mean: 0.1, std: 0.2 },
    { name: 'dna', suffix: 'd', mean: 0.1, std: 0.2 },
  ],
  nucleusChannel: 'dna',
  cellChannels: ['protein'],
};

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cellcam-other-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

test('trains, predicts images and cells', async () => {
  const { fields, imagesFolder } = await generateFields({ folder, fields: 8, size: 64, seed: 1 });
  for (const { id } of fields) {
    renameSync(join(imagesFolder, `${id}_green.png`), join(imagesFolder, `${id}_p.png`));
    renameSync(join(imagesFolder, `${id}_blue.png`), join(imagesFolder, `${id}_d.png`));
  }
  writeFileSync(join(folder, 'three.csv'), `ID,Label\n${fields.map(({ id }, i) => `${id},${i % 3}`).join('\n')}\n`);
  await dumpImages({
    imagesFolder,
    hdf5Output: join(folder, 'train', 'images_64.hdf5'),
    imageSize: 64,
    spec: SPEC,
    metaOutput: join(folder, 'meta.csv'),
  });
  const shared = {
    home: folder,
    dataHome: folder,
    labelsFile: 'three.csv',
    backbone: 'resnet18',
    spec: SPEC,
    imageSize: 64,
    cropSize: 64,
    folds: 2,
    seed: 1,
    device: 'cpu',
  } as const;
  const [first] = await trainFolds({ ...shared, epochs: 1, batchSize: 4 });
  const images: string[][] = parse(readFileSync(first!.oof, 'utf8'));
  expect(images[0]).toEqual(['ID', ...SPEC.classes]);
  const { path, cells } = await generateOof({
    ...shared,
    fold: 1,
    weightsFiles: [first!.best],
    metadataFile: 'meta.csv',
    masks: 'masks',
  });
  const rows: string[][] = parse(readFileSync(path, 'utf8'));
  expect(rows[0]).toEqual(['ID', 'ImageWidth', 'ImageHeight', 'cell_id', 'cell_center', '0', '1', '2']);
  expect(rows.length).toBe(cells + 1);
  expect(path).toContain('_PD_');
  using predictor = await Predictor.create({ backbone: 'resnet18', weights: [first!.best], spec: SPEC, device: 'cpu' });
  const { logits, maps } = await predictor.predict({ data: new Uint8Array(64 * 64 * 2), shape: [1, 64, 64, 2] });
  expect([logits.shape, maps.shape]).toEqual([
    [1, 3],
    [1, 3, 2, 2],
  ]);
});
