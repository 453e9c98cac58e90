import { existsSync, readFileSync } from 'node:fs';
import { parse } from 'csv-parse/sync';
import { CellcamError } from '../errors';
import { trainedFold } from '../training/stages';

/** The fold that validated each image of a training, by container and id. */
function readFolds(path: string): Map<string, number> {
  const rows: Record<string, string>[] = parse(readFileSync(path, 'utf8'), { columns: true });
  return new Map(rows.map((row) => [`${row['ext']}/${row['ID']}`, Number(row['fold'])]));
}

/**
 * The images that given weights were trained on, as the table beside their folder tells: all that other folds validated. None for
 * weights that lie elsewhere.
 */
export function seenBy(weights: string, images: { ids: string[]; ext: string[] }): string[] {
  const trained = trainedFold(weights);
  if (trained === undefined || !existsSync(trained.table)) return [];
  const folds = readFolds(trained.table);
  return images.ids.filter((id, row) => {
    const fold = folds.get(`${images.ext[row]}/${id}`);
    return fold !== undefined && fold !== trained.fold;
  });
}

/** Refuses to predict a fold by weights that saw some of its images. @throws CellcamError ERR_INVALID_ARG */
export function requireUnseen(weights: string, fold: number, images: { ids: string[]; ext: string[] }): void {
  const seen = seenBy(weights, images);
  if (seen.length === 0) return;
  throw new CellcamError(
    'ERR_INVALID_ARG',
    `Expected weights that never saw the images of fold ${fold}, but ${weights} was trained on ${seen.length} of ${images.ids.length}, ` +
      `such as ${seen[0]}: give that fold's own weights, and the table, seed and folds of their training`,
  );
}
