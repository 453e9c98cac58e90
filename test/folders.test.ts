import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';

const LIB = join(__dirname, '..', 'lib');
/** A folder imports only from those before it, and from the files that lie in lib itself. */
const ORDER = ['data', 'folds', 'metrics', 'cells', 'report', 'model', 'training', 'inference', 'demo', 'cli'];

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? sources(path) : [path];
  });
}

test('imports point one way through the folders of lib', () => {
  const wrong: string[] = [];
  for (const path of sources(LIB)) {
    const own = relative(LIB, path).split(sep);
    if (own.length === 1) continue;
    for (const [, target] of readFileSync(path, 'utf8').matchAll(/from '(\.[^']+)'/g)) {
      const folder = relative(LIB, join(dirname(path), target!)).split(sep);
      if (folder.length > 1 && ORDER.indexOf(folder[0]!) > ORDER.indexOf(own[0]!))
        wrong.push(`${own.join('/')} from ${target}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(
    [...new Set(sources(LIB).map((path) => relative(LIB, path).split(sep)))].filter(
      (p) => p.length > 1 && !ORDER.includes(p[0]!),
    ),
  ).toEqual([]);
});

test('only the binding knows Node', () => {
  const native = join(LIB, '..', 'native');
  const outside = sources(native).filter((path) => !path.includes(`${sep}binding${sep}`));
  expect(outside.filter((path) => /napi\.h|node_api/.test(readFileSync(path, 'utf8')))).toEqual([]);
});
