//! x
/// x
pub fn document(data: &[u8]) {
    let _ = crate::database::json::validate(data);
}
