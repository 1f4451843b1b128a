//! What the README shows is what the repository has.

use std::fs;

use super::examples_dir;

/// The one configuration in the README is `examples/edge.toml`, byte for byte.
#[test]
fn its_configuration_is_the_small_example() {
    let readme = fs::read_to_string(examples_dir().join("../README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|block| block.split_once("```").map(|(text, _)| text))
        .collect();
    let example = fs::read_to_string(examples_dir().join("edge.toml")).unwrap();
    assert_eq!(blocks, [example.as_str()]);
}
