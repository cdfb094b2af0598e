"""Write `watcher/sandbox/catalogue.json`: known molecules, checked with RDKit, and the targets that hold them.

Run from the repository's root: `python tests/tools/make_catalogue.py`. Each molecule is given with its formula as it stands in
textbooks; a SMILES that does not parse, or has another formula, stops the program. The scores are RDKit's synthetic accessibility
scores (Ertl and Schuffenhauer 2009), which already run from 1 (easy) to 10 (hard), rounded to three digits.
"""

# ruff: noqa: E501 - tables of molecules do not wrap

import json
import sys
from pathlib import Path

from rdkit import Chem, RDConfig
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

sys.path.append(str(Path(RDConfig.RDContribDir) / "SA_Score"))
import sascorer  # type: ignore[import-not-found]

OUTPUT = Path(__file__).parents[2] / "watcher" / "sandbox" / "catalogue.json"

# name | SMILES | formula
MOLECULES = """
paracetamol | CC(=O)Nc1ccc(O)cc1 | C8H9NO2
ibuprofen | CC(C)Cc1ccc(cc1)C(C)C(=O)O | C13H18O2
aspirin | CC(=O)Oc1ccccc1C(=O)O | C9H8O4
naproxen | COc1ccc2cc(ccc2c1)[C@H](C)C(=O)O | C14H14O3
diclofenac | OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl | C14H11Cl2NO2
celecoxib | Cc1ccc(cc1)-c1cc(nn1-c1ccc(cc1)S(N)(=O)=O)C(F)(F)F | C17H14F3N3O2S
sildenafil | CCCc1nn(C)c2c1nc([nH]c2=O)-c1cc(ccc1OCC)S(=O)(=O)N1CCN(C)CC1 | C22H30N6O4S
caffeine | Cn1c(=O)c2c(ncn2C)n(C)c1=O | C8H10N4O2
theophylline | Cn1c(=O)c2[nH]cnc2n(C)c1=O | C7H8N4O2
theobromine | Cn1cnc2c1c(=O)[nH]c(=O)n2C | C7H8N4O2
propranolol | CC(C)NCC(O)COc1cccc2ccccc12 | C16H21NO2
atenolol | CC(C)NCC(O)COc1ccc(CC(N)=O)cc1 | C14H22N2O3
metoprolol | COCCc1ccc(OCC(O)CNC(C)C)cc1 | C15H25NO3
nicotine | CN1CCC[C@H]1c1cccnc1 | C10H14N2
melatonin | COc1ccc2[nH]cc(CCNC(C)=O)c2c1 | C13H16N2O2
serotonin | NCCc1c[nH]c2ccc(O)cc12 | C10H12N2O
tryptamine | NCCc1c[nH]c2ccccc12 | C10H12N2
dopamine | NCCc1ccc(O)c(O)c1 | C8H11NO2
lidocaine | CCN(CC)CC(=O)Nc1c(C)cccc1C | C14H22N2O
procaine | CCN(CC)CCOC(=O)c1ccc(N)cc1 | C13H20N2O2
benzocaine | CCOC(=O)c1ccc(N)cc1 | C9H11NO2
metformin | CN(C)C(=N)NC(N)=N | C4H11N5
isoniazid | NNC(=O)c1ccncc1 | C6H7N3O
pyrazinamide | NC(=O)c1cnccn1 | C5H5N3O
nicotinamide | NC(=O)c1cccnc1 | C6H6N2O
nicotinic acid | OC(=O)c1cccnc1 | C6H5NO2
warfarin | CC(=O)CC(c1ccccc1)c1c(O)c2ccccc2oc1=O | C19H16O4
diazepam | CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc12 | C16H13ClN2O
phenytoin | O=C1NC(=O)C(N1)(c1ccccc1)c1ccccc1 | C15H12N2O2
carbamazepine | NC(=O)N1c2ccccc2C=Cc2ccccc12 | C15H12N2O
phenobarbital | CCC1(c2ccccc2)C(=O)NC(=O)NC1=O | C12H12N2O3
fluoxetine | CNCCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1 | C17H18F3NO
sertraline | CN[C@H]1CC[C@@H](c2ccc(Cl)c(Cl)c2)c2ccccc12 | C17H17Cl2N
bupropion | CC(NC(C)(C)C)C(=O)c1cccc(Cl)c1 | C13H18ClNO
amitriptyline | CN(C)CCC=C1c2ccccc2CCc2ccccc12 | C20H23N
imipramine | CN(C)CCCN1c2ccccc2CCc2ccccc12 | C19H24N2
chlorpromazine | CN(C)CCCN1c2ccccc2Sc2ccc(Cl)cc12 | C17H19ClN2S
haloperidol | OC1(CCN(CCCC(=O)c2ccc(F)cc2)CC1)c1ccc(Cl)cc1 | C21H23ClFNO2
diphenhydramine | CN(C)CCOC(c1ccccc1)c1ccccc1 | C17H21NO
loratadine | CCOC(=O)N1CCC(CC1)=C1c2ccc(Cl)cc2CCc2cccnc12 | C22H23ClN2O2
cetirizine | OC(=O)COCCN1CCN(CC1)C(c1ccccc1)c1ccc(Cl)cc1 | C21H25ClN2O3
ranitidine | CNC(=C[N+](=O)[O-])NCCSCc1ccc(CN(C)C)o1 | C13H22N4O3S
cimetidine | CNC(=NC#N)NCCSCc1nc[nH]c1C | C10H16N6S
omeprazole | COc1ccc2[nH]c(nc2c1)S(=O)Cc1ncc(C)c(OC)c1C | C17H19N3O3S
furosemide | NS(=O)(=O)c1cc(C(O)=O)c(NCc2ccco2)cc1Cl | C12H11ClN2O5S
hydrochlorothiazide | NS(=O)(=O)c1cc2c(cc1Cl)NCNS2(=O)=O | C7H8ClN3O4S2
sulfamethoxazole | Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1 | C10H11N3O3S
sulfanilamide | Nc1ccc(cc1)S(N)(=O)=O | C6H8N2O2S
trimethoprim | COc1cc(Cc2cnc(N)nc2N)cc(OC)c1OC | C14H18N4O3
ciprofloxacin | O=C(O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O | C17H18FN3O3
metronidazole | Cc1ncc([N+](=O)[O-])n1CCO | C6H9N3O3
benzylpenicillin | CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O | C16H18N2O4S
amoxicillin | CC1(C)S[C@@H]2[C@H](NC(=O)[C@H](N)c3ccc(O)cc3)C(=O)N2[C@H]1C(=O)O | C16H19N3O5S
fluconazole | OC(Cn1cncn1)(Cn1cncn1)c1ccc(F)cc1F | C13H12F2N6O
aciclovir | Nc1nc2c(ncn2COCCO)c(=O)[nH]1 | C8H11N5O3
zidovudine | Cc1cn([C@H]2C[C@H](N=[N+]=[N-])[C@@H](CO)O2)c(=O)[nH]c1=O | C10H13N5O4
oseltamivir | CCOC(=O)C1=C[C@@H](OC(CC)CC)[C@H](NC(C)=O)[C@@H](N)C1 | C16H28N2O4
favipiravir | NC(=O)c1nc(F)c[nH]c1=O | C5H4FN3O2
ribavirin | NC(=O)c1ncn([C@@H]2O[C@H](CO)[C@@H](O)[C@H]2O)n1 | C8H12N4O5
hydroxychloroquine | CCN(CCO)CCCC(C)Nc1ccnc2cc(Cl)ccc12 | C18H26ClN3O
chloroquine | CCN(CC)CCCC(C)Nc1ccnc2cc(Cl)ccc12 | C18H26ClN3
imatinib | Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(n1)-c1cccnc1 | C29H31N7O
erlotinib | COCCOc1cc2ncnc(Nc3cccc(c3)C#C)c2cc1OCCOC | C22H23N3O4
gefitinib | COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1 | C22H24ClFN4O3
sorafenib | CNC(=O)c1cc(Oc2ccc(NC(=O)Nc3ccc(Cl)c(c3)C(F)(F)F)cc2)ccn1 | C21H16ClF3N4O3
ibrutinib | C=CC(=O)N1CCC[C@H](C1)n1nc(-c2ccc(Oc3ccccc3)cc2)c2c(N)ncnc12 | C25H24N6O2
tofacitinib | C[C@@H]1CCN(C[C@@H]1N(C)c1ncnc2[nH]ccc12)C(=O)CC#N | C16H20N6O
ruxolitinib | N#CC[C@H](C1CCCC1)n1cc(cn1)-c1ncnc2[nH]ccc12 | C17H18N6
olaparib | O=C(C1CC1)N1CCN(CC1)C(=O)c1cc(Cc2n[nH]c(=O)c3ccccc23)ccc1F | C24H23FN4O3
vorinostat | ONC(=O)CCCCCCC(=O)Nc1ccccc1 | C14H20N2O3
tamoxifen | CC/C(=C(\\c1ccccc1)c1ccc(OCCN(C)C)cc1)c1ccccc1 | C26H29NO
methotrexate | CN(Cc1cnc2nc(N)nc(N)c2n1)c1ccc(cc1)C(=O)N[C@@H](CCC(=O)O)C(=O)O | C20H22N8O5
fluorouracil | Fc1c[nH]c(=O)[nH]c1=O | C4H3FN2O2
thalidomide | O=C1CCC(N2C(=O)c3ccccc3C2=O)C(=O)N1 | C13H10N2O4
dexamethasone | C[C@@H]1C[C@H]2[C@@H]3CCC4=CC(=O)C=C[C@]4(C)[C@@]3(F)[C@@H](O)C[C@]2(C)[C@@]1(O)C(=O)CO | C22H29FO5
testosterone | C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O | C19H28O2
estradiol | C[C@]12CC[C@H]3[C@@H](CCc4cc(O)ccc34)[C@@H]1CC[C@@H]2O | C18H24O2
cholesterol | C[C@H](CCCC(C)C)[C@H]1CC[C@H]2[C@@H]3CC=C4C[C@@H](O)CC[C@]4(C)[C@H]3CC[C@]12C | C27H46O
morphine | CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5 | C17H19NO3
quinine | COC1=CC2=C(C=CN=C2C=C1)[C@H]([C@@H]3C[C@@H]4CCN3C[C@@H]4C=C)O | C20H24N2O2
artemisinin | C[C@@H]1CC[C@H]2[C@H](C(=O)O[C@H]3[C@@]24[C@H]1CC[C@](O3)(OO4)C)C | C15H22O5
paclitaxel | CC1=C2[C@H](C(=O)[C@@]3([C@H](C[C@@H]4[C@]([C@H]3[C@@H]([C@@](C2(C)C)(C[C@@H]1OC(=O)[C@@H]([C@H](C5=CC=CC=C5)NC(=O)C6=CC=CC=C6)O)O)OC(=O)C7=CC=CC=C7)(CO4)OC(=O)C)O)C)OC(=O)C | C47H51NO14
menthol | CC(C)[C@@H]1CC[C@@H](C)C[C@H]1O | C10H20O
camphor | CC1(C)C2CCC1(C)C(=O)C2 | C10H16O
limonene | CC(=C)C1CCC(C)=CC1 | C10H16
vanillin | COc1cc(C=O)ccc1O | C8H8O3
eugenol | COc1cc(CC=C)ccc1O | C10H12O2
thymol | Cc1ccc(C(C)C)c(O)c1 | C10H14O
capsaicin | COc1cc(CNC(=O)CCCC/C=C/C(C)C)ccc1O | C18H27NO3
curcumin | COc1cc(/C=C/C(=O)CC(=O)/C=C/c2ccc(O)c(OC)c2)ccc1O | C21H20O6
resveratrol | Oc1ccc(/C=C/c2cc(O)cc(O)c2)cc1 | C14H12O3
quercetin | O=c1c(O)c(-c2ccc(O)c(O)c2)oc2cc(O)cc(O)c12 | C15H10O7
genistein | O=c1c(-c2ccc(O)cc2)coc2cc(O)cc(O)c12 | C15H10O5
coumarin | O=c1ccc2ccccc2o1 | C9H6O2
cinnamic acid | OC(=O)/C=C/c1ccccc1 | C9H8O2
caffeic acid | OC(=O)/C=C/c1ccc(O)c(O)c1 | C9H8O4
gallic acid | OC(=O)c1cc(O)c(O)c(O)c1 | C7H6O5
salicylic acid | OC(=O)c1ccccc1O | C7H6O3
ascorbic acid | OC[C@H](O)[C@H]1OC(=O)C(O)=C1O | C6H8O6
citric acid | OC(=O)CC(O)(CC(O)=O)C(O)=O | C6H8O7
papaverine | COc1ccc(Cc2nccc3cc(OC)c(OC)cc23)cc1OC | C20H21NO4
colchicine | COc1cc2CC[C@H](NC(C)=O)c3cc(=O)c(OC)ccc3-c2c(OC)c1OC | C22H25NO6
L-tryptophan | N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O | C11H12N2O2
L-phenylalanine | N[C@@H](Cc1ccccc1)C(=O)O | C9H11NO2
L-proline | OC(=O)[C@@H]1CCCN1 | C5H9NO2
biotin | OC(=O)CCCC[C@@H]1SC[C@@H]2NC(=O)N[C@H]12 | C10H16N2O3S
adenine | Nc1ncnc2[nH]cnc12 | C5H5N5
adenosine | Nc1ncnc2c1ncn2[C@@H]1O[C@H](CO)[C@@H](O)[C@H]1O | C10H13N5O4
GS-441524 | C1=C2C(=NC=NN2C(=C1)[C@]3([C@@H]([C@@H]([C@H](O3)CO)O)O)C#N)N | C12H13N5O4
nirmatrelvir | CC1([C@@H]2[C@H]1[C@H](N(C2)C(=O)[C@H](C(C)(C)C)NC(=O)C(F)(F)F)C(=O)N[C@@H](C[C@@H]3CCNC3=O)C#N)C | C23H32F3N5O4
ensitrelvir | CN1C=C2C=C(C(=CC2=N1)NC3=NC(=O)N(C(=O)N3CC4=CC(=C(C=C4F)F)F)CC5=NN(C=N5)C)Cl | C22H17ClF3N9O2
ebselen | O=c1n(-c2ccccc2)[se]c2ccccc12 | C13H9NOSe
pleconaril | Cc1cc(CCCOc2c(C)cc(cc2C)-c2noc(n2)C(F)(F)F)on1 | C18H18F3N3O3
niclosamide | Oc1ccc(Cl)cc1C(=O)Nc1ccc([N+](=O)[O-])cc1Cl | C13H8Cl2N2O4
nitazoxanide | CC(=O)Oc1ccccc1C(=O)Nc1ncc([N+](=O)[O-])s1 | C12H9N3O5S
disulfiram | CCN(CC)C(=S)SSC(=S)N(CC)CC | C10H20N2S4
captopril | C[C@H](CS)C(=O)N1CCC[C@H]1C(=O)O | C9H15NO3S
enalapril | CCOC(=O)[C@H](CCc1ccccc1)N[C@@H](C)C(=O)N1CCC[C@H]1C(=O)O | C20H28N2O5
losartan | CCCCc1nc(Cl)c(CO)n1Cc1ccc(cc1)-c1ccccc1-c1nnn[nH]1 | C22H23ClN6O
atorvastatin | CC(C)c1c(C(=O)Nc2ccccc2)c(-c2ccccc2)c(-c2ccc(F)cc2)n1CC[C@@H](O)C[C@@H](O)CC(=O)O | C33H35FN2O5
nifedipine | COC(=O)C1=C(C)NC(C)=C(C1c1ccccc1[N+](=O)[O-])C(=O)OC | C17H18N2O6
amlodipine | CCOC(=O)C1=C(COCCN)NC(C)=C(C1c1ccccc1Cl)C(=O)OC | C20H25ClN2O5
verapamil | COc1ccc(CCN(C)CCCC(C#N)(C(C)C)c2ccc(OC)c(OC)c2)cc1OC | C27H38N2O4
salbutamol | CC(C)(C)NCC(O)c1ccc(O)c(CO)c1 | C13H21NO3
ketoprofen | CC(C(=O)O)c1cccc(c1)C(=O)c1ccccc1 | C16H14O3
indometacin | COc1ccc2c(c1)c(CC(=O)O)c(C)n2C(=O)c1ccc(Cl)cc1 | C19H16ClNO4
gabapentin | NCC1(CC(=O)O)CCCCC1 | C9H17NO2
baclofen | NCC(CC(=O)O)c1ccc(Cl)cc1 | C10H12ClNO2
modafinil | NC(=O)CS(=O)C(c1ccccc1)c1ccccc1 | C15H15NO2S
zolpidem | Cc1ccc(cc1)-c1nc2ccc(C)cn2c1CC(=O)N(C)C | C19H21N3O
rivaroxaban | O=C(NC[C@H]1CN(C(=O)O1)c1ccc(cc1)N1CCOCC1=O)c1ccc(Cl)s1 | C19H18ClN3O5S
apixaban | COc1ccc(cc1)-n1nc(C(N)=O)c2CCN(C(=O)c12)c1ccc(cc1)N1CCCCC1=O | C25H25N5O4
allopurinol | O=c1[nH]cnc2[nH]ncc12 | C5H4N4O
probenecid | CCCN(CCC)S(=O)(=O)c1ccc(cc1)C(=O)O | C13H19NO4S
tolbutamide | CCCCNC(=O)NS(=O)(=O)c1ccc(C)cc1 | C12H18N2O3S
acetazolamide | CC(=O)Nc1nnc(s1)S(N)(=O)=O | C4H6N4O3S2
dapsone | Nc1ccc(cc1)S(=O)(=O)c1ccc(N)cc1 | C12H12N2O2S
indole | c1ccc2[nH]ccc2c1 | C8H7N
benzimidazole | c1ccc2[nH]cnc2c1 | C7H6N2
quinoline | c1ccc2ncccc2c1 | C9H7N
isoquinoline | c1ccc2cnccc2c1 | C9H7N
2-aminopyridine | Nc1ccccn1 | C5H6N2
benzamide | NC(=O)c1ccccc1 | C7H7NO
benzenesulfonamide | NS(=O)(=O)c1ccccc1 | C6H7NO2S
acetanilide | CC(=O)Nc1ccccc1 | C8H9NO
saccharin | O=C1NS(=O)(=O)c2ccccc12 | C7H5NO3S
phthalimide | O=C1NC(=O)c2ccccc12 | C8H5NO2
benzotriazole | c1ccc2[nH]nnc2c1 | C6H5N3
1-phenylpiperazine | C1CN(CCN1)c1ccccc1 | C10H14N2
tyramine | NCCc1ccc(O)cc1 | C8H11NO
8-hydroxyquinoline | Oc1cccc2cccnc12 | C9H7NO
Z1259207775 | Cn1cc(N)c(C(=O)NC2CCC2)n1 | C9H14N4O
Z100642432 | CN(C)C(=O)c1ccc(F)cc1Br | C9H9BrFNO
Z100643660 | CNC(=O)c1cn(C)c2ccccc12 | C11H12N2O
Z104924088 | CC(C)N1CCN(c2ncccn2)CC1 | C11H18N4
Z1082839290 | O=S(=O)(NC1CCCC1)C1CCOCC1 | C10H19NO3S
Z1148165337 | CN(C)C(=O)Cn1ncc2ccccc21 | C11H13N3O
Z1148747945 | CC(=O)Nc1ccncc1C | C8H10N2O
Z1198177230 | COc1ccccc1-c1nnco1 | C9H8N2O2
Z1201620232 | COc1ccc2sc(N)nc2c1 | C8H8N2OS
Z1203107138 | CCn1cc(C(=O)NCc2ccc(F)cc2)cn1 | C13H14FN3O
Z45617795 | CS(=O)(=O)NCCc1ccccc1 | C9H13NO2S
Z57260516 | COCC(=O)Nc1c(C)cc(C)cc1C | C12H17NO2
"""

# The vendor's own ways, by name; `refuses` are parts of a string that it takes for no molecule.
VENDOR = {
    "refuses": ["*", "|", "~", ">", "[se]"],
    "no_pathway": ["paclitaxel"],
    "errors": ["colchicine"],
    "timed_out": ["artemisinin"],
}

# target | TAS | display name | public | uploads there at the start | uploads; an upload is names, or "=" and a string of its own.
# "name+" is a second crystal form of the observation before it, "!name" has no compound code, "&name" repeats the code before it.
TARGETS = [
    (
        "A71EV2A", "lb32627-66", "EV A71 2A protease", True, 2,
        [
            ["Z1259207775", "Z100642432", "Z100643660", "Z104924088", "Z1082839290", "Z1148165337", "Z1148747945", "Z1198177230",
             "Z1198177230+", "Z1201620232", "Z1201620232+", "Z1203107138", "Z45617795", "=CS(=O)(=O)NCCC=1C=CC=CC1", "Z57260516",
             "paracetamol", "ibuprofen", "caffeine", "aspirin", "naproxen", "!indole", "!benzimidazole", "2-aminopyridine",
             "benzamide", "&acetanilide", "paclitaxel"],
            ["diclofenac", "celecoxib", "sildenafil", "propranolol", "nicotine", "pleconaril", "tryptamine", "caffeine",
             "=CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "=CC(=O)Nc1ccc(O)cc1.Cl", "=", "=Z1270393711",
             "=CNC(=O)CN1C[C@@]2(CCN(C2=O)C=3C=NC=C4C=CC=CC34)C=5C=C(Cl)C=CC5C1=O |o1:7,r|", "!phthalimide", "quinoline"],
            ["melatonin", "serotonin", "dopamine", "lidocaine", "benzocaine", "sulfanilamide", "tyramine", "caffeine",
             "8-hydroxyquinoline"],
        ],
    ),
    (
        "Mpro", "lb18145-1", "SARS-CoV-2 main protease", True, 1,
        [
            ["nirmatrelvir", "ensitrelvir", "paracetamol", "aspirin", "isoquinoline", "benzotriazole", "nicotinamide", "isoniazid",
             "=*CC(=O)N1CCN(S(=O)(=O)c2cccs2)CC1", "niclosamide", "disulfiram", "carbamazepine", "phenytoin", "lidocaine",
             "procaine", "colchicine", "quercetin", "genistein", "resveratrol", "!saccharin", "acetanilide", "acetanilide+",
             "chloroquine", "hydroxychloroquine", "favipiravir", "ribavirin", "GS-441524", "warfarin", "diazepam", "furosemide",
             "sulfamethoxazole", "trimethoprim", "=\u0421\u0421O"],
            ["ebselen", "nitazoxanide", "baclofen", "captopril", "enalapril", "losartan", "theophylline", "theobromine", "coumarin"],
            ["vanillin", "eugenol", "thymol", "capsaicin", "curcumin", "gallic acid"],
        ],
    ),
    (
        "Mpro", "lb32627-66", "EV D68 main protease", True, 1,
        [
            ["nirmatrelvir", "imatinib", "erlotinib", "gefitinib", "sorafenib", "ibrutinib", "tofacitinib", "ruxolitinib",
             "olaparib", "vorinostat", "tamoxifen", "indole", "quinoline", "benzenesulfonamide", "1-phenylpiperazine",
             "pyrazinamide", "nicotinic acid", "salicylic acid"],
            ["methotrexate", "fluorouracil", "thalidomide", "allopurinol", "adenine", "adenosine", "aciclovir", "zidovudine",
             "oseltamivir", "imatinib"],
        ],
    ),
    (
        "ZIKV_NS5A", "lb32633-6", "Zika virus NS5 RNA polymerase", True, 1,
        [
            ["atenolol", "metoprolol", "fluoxetine", "sertraline", "bupropion", "amitriptyline", "imipramine", "chlorpromazine",
             "haloperidol", "diphenhydramine", "loratadine", "cetirizine", "ranitidine", "cimetidine", "omeprazole",
             "hydrochlorothiazide", "ciprofloxacin", "metronidazole", "benzylpenicillin", "amoxicillin", "fluconazole", "metformin",
             "phenobarbital", "artemisinin", "quinine", "morphine", "caffeine"],
            ["dexamethasone", "testosterone", "estradiol", "cholesterol", "menthol", "camphor", "limonene", "papaverine",
             "cinnamic acid", "caffeic acid", "ascorbic acid", "citric acid", "biotin"],
        ],
    ),
    (
        "CHIKV_Mac", "lb27995-1", "Chikungunya virus macrodomain", False, 1,
        [
            ["atorvastatin", "nifedipine", "amlodipine", "verapamil", "salbutamol", "ketoprofen", "indometacin", "gabapentin",
             "modafinil", "zolpidem", "paracetamol"],
            ["rivaroxaban", "apixaban", "probenecid", "tolbutamide", "acetazolamide", "dapsone", "L-tryptophan", "L-phenylalanine",
             "L-proline"],
        ],
    ),
]  # fmt: skip

# In an upload of a target, the rows that take the code of an earlier upload's row: (target, TAS, upload, name) -> (upload, place).
SUPERSEDES = {("A71EV2A", "lb32627-66", 2, "caffeine"): (1, 4), ("A71EV2A", "lb32627-66", 3, "melatonin"): (1, 12)}


def molecules() -> dict[str, dict[str, object]]:
    """Check every molecule and return its canonical SMILES and score by name."""
    found: dict[str, dict[str, object]] = {}
    for line in MOLECULES.strip().splitlines():
        name, smiles, formula = (cell.strip() for cell in line.split(" | "))
        molecule = Chem.MolFromSmiles(smiles)  # None makes the next line fail loudly
        if CalcMolFormula(molecule) != formula:
            raise SystemExit(f"{name}: {smiles} is not {formula}")
        canonical = Chem.MolToSmiles(molecule)
        score = round(float(sascorer.calculateScore(molecule)), 3)
        if any(canonical == other["canonical"] for other in found.values()):
            raise SystemExit(f"{name}: listed twice")
        found[name] = {"smiles": smiles, "canonical": canonical, "score": score}
    return found


def rows(place: int, uploads: list[list[str]], key: tuple[str, str]) -> list[list[list[str | None]]]:
    """Give each observation of a target its code and its compound code."""
    crystal = 100 + 37 * place
    codes: dict[tuple[int, int], str] = {}
    out: list[list[list[str | None]]] = []
    for index, upload in enumerate(uploads, start=1):
        out.append([])
        for number, entry in enumerate(upload, start=1):
            name = entry.lstrip("!&").removesuffix("+")
            previous = codes.get((index, number - 1), "")
            if (earlier := SUPERSEDES.get((*key, index, name))) is not None:
                code = codes[earlier]
            elif entry.startswith("&"):
                code = previous
            elif entry.endswith("+"):
                code = previous[:-1] + chr(ord(previous[-1]) + 1)
            else:
                crystal += 1 + (crystal * 7 + number) % 5
                code = f"A{crystal:04d}a"
            codes[index, number] = code
            compound = (
                name if name.startswith("Z") and name[1:].isdigit() else f"Z{1_000_000 + 7919 * (crystal + number)}"
            )
            out[-1].append([code, name, None if entry.startswith("!") else compound])
    return out


def main() -> None:
    """Write the catalogue, one molecule and one row to a line."""
    known = molecules()
    used = {entry.lstrip("!&").removesuffix("+") for *_, uploads in TARGETS for upload in uploads for entry in upload}
    if stray := {name for name in used if not name.startswith("=")} - {*known}:
        raise SystemExit(f"unknown molecules: {stray}")
    if idle := {*known} - used:
        raise SystemExit(f"molecules that no target holds: {idle}")

    def lines(items: list[str], indent: str) -> str:
        return f",\n{indent}".join(items)

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=True)

    molecule_lines = lines([f"{text(name)}: {text(fields)}" for name, fields in known.items()], "    ")
    targets = []
    for place, (name, tas, display, public, published, uploads) in enumerate(TARGETS):
        head = {
            "name": name,
            "target_access_string": tas,
            "display_name": display,
            "public": public,
            "published": published,
        }
        made = rows(place, uploads, (name, tas))
        body = lines(
            ["[\n        " + lines([text(row) for row in upload], "        ") + "\n      ]" for upload in made],
            "      ",
        )
        targets.append(text(head)[:-1] + ', "uploads": [\n      ' + body + "\n    ]}")
    document = (
        f'{{\n  "molecules": {{\n    {molecule_lines}\n  }},\n  "vendor": {text(VENDOR)},\n'
        f'  "targets": [\n    {lines(targets, "    ")}\n  ]\n}}\n'
    )
    json.loads(document)
    OUTPUT.write_text(document, encoding="utf-8")
    rows_written = sum(len(upload) for *_, uploads in TARGETS for upload in uploads)
    sys.stdout.write(f"{len(known)} molecules, {rows_written} observations -> {OUTPUT}\n")


if __name__ == "__main__":
    main()
