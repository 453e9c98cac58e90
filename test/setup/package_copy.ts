import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { ROOT, type Sandbox } from './fake_libtorch';

/** A copy of the package as it is installed: everything but the addon, so that tests can build or break their own. */
export function copyPackage(box: Sandbox): string {
  const copy = box.path('node_modules', 'cellcam');
  mkdirSync(copy, { recursive: true });
  for (const part of ['package.json', 'scripts', 'native', 'CMakeLists.txt', 'binding.gyp', 'dist']) {
    cpSync(path.join(ROOT, part), path.join(copy, part), { recursive: true });
  }
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(copy, 'node_modules'), 'dir');
  return copy;
}
