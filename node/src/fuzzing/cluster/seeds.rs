//! Commands that administrators and nodes write, as a body takes them.

use super::*;

pub(in crate::fuzzing) fn seeds() -> Vec<Vec<u8>> {
    let seed = |entries: &[(u8, C)]| {
        let mut bytes = Vec::new();
        for ((by, command), later) in entries.iter().zip(1_u8..) {
            bytes.extend([*by, later]);
            let command = ClusterCommand { command: Some(command.clone()) };
            push_piece(&mut bytes, &command.encode_to_vec());
        }
        bytes
    };
    let put = |who: u8, clearance, overwrite| {
        C::PutCertificate(PutCertificate {
            der: vec![who],
            name: "new".to_owned(),
            clearance,
            overwrite,
            grants: vec![grant("sales")],
            ..PutCertificate::default()
        })
    };
    let edit = |who: u8, clearance| {
        let clearance = Some(clearance);
        C::EditCertificate(EditCertificate { thumbprint: vec![who], clearance, ..<_>::default() })
    };
    let token = CreateJoinToken {
        id: "t".to_owned(),
        secret_digest: vec![7; 32],
        expires_unix_ms: NOW + 3_600_000,
    };
    let joining = node("n3");
    let join = JoinNode {
        token_id: "t".to_owned(),
        secret_digest: vec![7; 32],
        name: joining.name,
        client_address: joining.client_address,
        peer_address: joining.peer_address,
        incarnation: joining.incarnation,
        certificate: vec![9],
    };
    let sealed = |node_id| SealedFor { node_id, sealed: vec![1; 90] };
    let secret = PutClusterSecret { replaces: 0, sealed: vec![sealed(1), sealed(2)] };
    let sealing = |node_id| C::RegisterSealingKey(RegisterSealingKey { node_id, key: vec![5; 32] });
    let enrol =
        EnrolSecondFactor { thumbprint: vec![5], key_id: FIRST_REQUEST + 2, sealed: vec![3; 100] };
    let session = OpenSession {
        thumbprint: vec![5],
        enrolled_revision: FIRST_REQUEST + 3,
        confirms: true,
        proof: Some(open_session::Proof::Step(58_333_333)),
        duration_ms: 60_000,
        token_digest: vec![4; 32],
    };
    let owner = |command| C::Owner(OwnerCommand { reason: "x".to_owned(), command: Some(command) });
    let force = OwnerDelete { thumbprint: vec![2], force: true };
    let database = |name: &str| CreateDatabase { name: name.to_owned(), ..<_>::default() };
    let mut raw = vec![u8::MAX, 0];
    let whole = ClusterCommand { command: Some(C::CreateDatabase(database("raw"))) };
    push_piece(&mut raw, &enveloped(FIRST_REQUEST, 2, 0, whole).encode_to_vec());
    vec![
        seed(&[
            (2, put(7, 2, false)),
            (4, edit(7, 1)),
            (4, put(7, 1, true)),
            (4, put(7, 3, true)),
            (7, edit(2, 1)),
        ]),
        seed(&[
            (4, C::DeleteCertificate(DeleteCertificate { thumbprint: vec![5] })),
            (
                4,
                C::SetCertificateState(SetCertificateState {
                    thumbprint: vec![6],
                    disabled: true,
                    ..SetCertificateState::default()
                }),
            ),
            (2, C::PurgeCertificates(PurgeCertificates { limit: 10 })),
        ]),
        seed(&[
            (4, C::CreateDatabase(database("stock"))),
            (4, C::SetDatabaseState(SetDatabaseState { name: "SALES".to_owned(), enabled: false })),
            (4, C::DeleteDatabase(DeleteDatabase { name: "sales".to_owned() })),
        ]),
        seed(&[
            (2, C::CreateJoinToken(token)),
            (11, C::JoinNode(join)),
            (2, C::RemoveNode(RemoveNode { node_id: 3 })),
        ]),
        seed(&[
            (0, sealing(1)),
            (1, sealing(2)),
            (0, C::PutClusterSecret(secret)),
            (5, C::EnrolSecondFactor(enrol)),
            (0, C::OpenSession(session)),
            (0, C::NoteWrongCode(NoteWrongCode { thumbprint: vec![5] })),
            (5, C::EndSession(EndSession {})),
            (2, C::RemoveSecondFactor(RemoveSecondFactor { thumbprint: vec![5] })),
        ]),
        seed(&[
            (0, owner(owner_command::Command::Delete(force))),
            (2, C::SetSecurityPolicy(SetSecurityPolicy::default())),
        ]),
        raw,
    ]
}
