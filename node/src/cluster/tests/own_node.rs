//! What members write of themselves.

use rookery_proto::log::v1::RegisterSealingKey;

use super::*;

fn sealing_key(node_id: u64, key: &[u8]) -> cluster_command::Command {
    let key = key.to_vec();
    cluster_command::Command::RegisterSealingKey(RegisterSealingKey { node_id, key })
}

#[test]
fn a_sealing_key_is_registered_by_its_node_and_by_nobody_else() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), sealing_key(1, &[7; 32]));
    replica.ok(Cert("n2"), sealing_key(2, &[8; 32]));
    replica.ok(Cert("n2"), sealing_key(2, &[9; 32]));
    let registered = |id| replica.registry().node(NodeId(id)).unwrap().sealing_key.clone();
    assert_eq!([registered(1), registered(2), registered(3)], [vec![7; 32], vec![9; 32], vec![]]);

    replica.no(Cert("n1"), sealing_key(2, &[1; 32]), "NOT_A_MEMBER", "node_id");
    replica.no(Cert("n1"), sealing_key(9, &[1; 32]), "NOT_A_MEMBER", "node_id");
    replica.no(Cert("n1"), sealing_key(1, &[1; 31]), "INVALID_ARGUMENT", "key");
    replica.no(Cert("root"), sealing_key(1, &[1; 32]), "NOT_A_MEMBER", "");
    replica.no(Node, sealing_key(1, &[1; 32]), "CLEARANCE_TOO_LOW", "");
    replica.ok(Cert("root"), remove(3));
    replica.no(Cert("n3"), sealing_key(3, &[1; 32]), "CERTIFICATE_UNKNOWN", "");
}
