//! Writes the input that a target begins with: `seeds TARGET FOLDER`.

use std::{env, fs, path::Path};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, folder] = arguments.as_slice() else { panic!("seeds TARGET FOLDER") };
    let target = rookery::fuzzing::target(name).expect("a target of this name");
    fs::create_dir_all(folder).expect("the folder can be made");
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(Path::new(folder).join(format!("seed-{number}")), seed).expect("written");
    }
}
